"""Pools as the rollouts of a GRPO run in TRL. ``import trl`` in this package means TRL, not this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lm_eval_eglr.trl.rewards import format_reward, math_reward
from lm_eval_eglr.trl.rollouts import PoolRollouts

if TYPE_CHECKING:
    from lm_eval_eglr.trl.trainer import PoolGRPOTrainer

__all__ = ["PoolGRPOTrainer", "PoolRollouts", "format_reward", "math_reward"]


def __getattr__(name: str) -> Any:
    # The trainer is a class of TRL's, which is dear to import and optional; the rest does without it.
    if name != "PoolGRPOTrainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from lm_eval_eglr.trl.trainer import PoolGRPOTrainer
    except ModuleNotFoundError as error:
        if error.name != "trl":
            raise
        raise ImportError("PoolGRPOTrainer needs TRL: pip install 'lm-eval-eglr[trl]'") from error
    return PoolGRPOTrainer
