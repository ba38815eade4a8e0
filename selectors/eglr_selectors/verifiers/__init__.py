"""Verifiers: what gives every rollout of a problem a score. Heavy ones load when they first score."""

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
    "get_verifier",
    "register_verifier",
    "scores_of",
]


def __getattr__(name: str) -> object:
    if name != "fit_verifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib
    import warnings

    # Fitting needs selectors, which need verifiers: it lives above both.
    warnings.warn(
        "eglr_selectors.verifiers.fit_verifier has moved to eglr_selectors.fitting",
        DeprecationWarning,
        stacklevel=2,
    )
    return importlib.import_module("eglr_selectors.fitting").fit_verifier
