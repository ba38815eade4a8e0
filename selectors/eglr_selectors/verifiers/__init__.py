"""Verifiers: what gives every rollout of a problem a score. Heavy ones load when they first score."""

from eglr_selectors.verifiers.registry import (
    Verifier,
    VerifierInfo,
    VerifierLike,
    available_verifiers,
    get_verifier,
    register_verifier,
    scores_of,
)

__all__ = [
    "Verifier",
    "VerifierInfo",
    "VerifierLike",
    "available_verifiers",
    "get_verifier",
    "register_verifier",
    "scores_of",
]
