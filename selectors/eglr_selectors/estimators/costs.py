"""What selections cost: rollouts, tokens, floating-point operations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eglr_selectors.parsed import ParsedPool
from eglr_selectors.selection import Selection
from eglr_selectors.unit_costs import UnitCosts, pool_flops, unit_costs

__all__ = ["Cost", "UnitCosts", "cost_of", "pool_flops", "unit_costs"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Means over problems.

    Attributes:
        rollouts: Rollouts looked at.
        tokens: Their tokens; NaN if a pool does not know them.
        flops: Floating-point operations of decoding them, shared work counted once; NaN where a pool
            has no cost or only a part of it was looked at: sharing makes a part's cost unknown.
    """

    rollouts: float
    tokens: float
    flops: float


def cost_of(pools: Sequence[ParsedPool], selections: Iterable[Selection]) -> Cost:
    """Returns the mean cost of one selection from each pool; NaN in all columns if there is none.

    Raises:
        ValueError: If there is not one selection per pool.
    """
    pairs = list(zip(pools, selections, strict=True))
    return Cost(
        _mean([float(selection.rollouts) for _, selection in pairs]),
        _mean([math.nan if each.tokens is None else float(each.tokens) for _, each in pairs]),
        _mean([_flops(parsed, selection) for parsed, selection in pairs]),
    )


def _flops(parsed: ParsedPool, selection: Selection) -> float:
    return pool_flops(parsed) if selection.rollouts == len(parsed) else math.nan


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
