"""Verifiers: what gives every rollout of a problem a score. Heavy ones load when they first score."""

from eglr_selectors.verifiers.fitting import fit_verifier
from eglr_selectors.verifiers.learned import FitReport, LearnedVerifier
from eglr_selectors.verifiers.process_reward_model import ProcessRewardModel
from eglr_selectors.verifiers.registry import (
    Verifier,
    VerifierInfo,
    VerifierLike,
    available_verifiers,
    get_verifier,
    register_verifier,
    scores_of,
)
from eglr_selectors.verifiers.reward_model import RewardModel

__all__ = [
    "FitReport",
    "LearnedVerifier",
    "ProcessRewardModel",
    "RewardModel",
    "Verifier",
    "VerifierInfo",
    "VerifierLike",
    "available_verifiers",
    "fit_verifier",
    "get_verifier",
    "register_verifier",
    "scores_of",
]
