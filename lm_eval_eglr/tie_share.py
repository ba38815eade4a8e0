"""How much of a pool rounding decided; without lm_eval, for tables of stored pools too."""

from __future__ import annotations

import math

from eglr_selectors import RolloutPool


def tie_count(pool: RolloutPool) -> int | None:
    """Tokens of which rounding decided; ``None`` where nothing is known of how a rollout was decoded."""
    known = [rollout.telemetry for rollout in pool if rollout.telemetry is not None]
    return sum(telemetry.ties for telemetry in known) if known else None


def tie_share(pool: RolloutPool) -> float:
    """Share of tokens of which rounding decided; NaN where there are none."""
    tokens = sum(len(rollout.tokens) for rollout in pool)
    return (tie_count(pool) or 0) / tokens if tokens else math.nan
