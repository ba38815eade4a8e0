"""Pools as what can be compared: all that is written of their rollouts, and their costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from eglr_selectors import Rollout, RolloutPool


def recorded(pools: Iterable[RolloutPool]) -> list[tuple[list[tuple[Any, ...]], dict[str, Any]]]:
    """Rollouts and cost of each pool, numbers to seven digits."""
    return [([written(rollout) for rollout in pool], dataclasses.asdict(pool.cost)) for pool in pools]


def written(rollout: Rollout) -> tuple[Any, ...]:
    """Cell, tokens, text, reason, and telemetry by name."""
    telemetry = {
        name: [f"{value:.7g}" for value in (values if isinstance(values, tuple) else (values,))]
        for name, values in dataclasses.asdict(rollout.telemetry).items()
    }
    return str(rollout.cell), rollout.tokens, rollout.text, rollout.finish_reason, telemetry
