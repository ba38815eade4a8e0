"""How much of a pool rounding decided; without lm_eval, for tables of stored pools too."""

from __future__ import annotations

import math

from eglr_selectors import RolloutPool


def tie_share(pool: RolloutPool) -> float:
    """Share of tokens of which rounding decided; NaN where there are none."""
    tokens = sum(len(rollout.tokens) for rollout in pool)
    ties = sum(rollout.telemetry.ties for rollout in pool if rollout.telemetry is not None)
    return ties / tokens if tokens else math.nan
