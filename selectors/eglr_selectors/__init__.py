"""Selection from pools of rollouts: pools, safe answer grading, selectors. Imports neither torch nor lm_eval."""

from eglr_selectors.pool import (
    Cell,
    FinishReason,
    PoolCost,
    Rollout,
    RolloutPool,
    Telemetry,
    rollout_from_record,
)

__all__ = [
    "Cell",
    "FinishReason",
    "PoolCost",
    "Rollout",
    "RolloutPool",
    "Telemetry",
    "rollout_from_record",
]
