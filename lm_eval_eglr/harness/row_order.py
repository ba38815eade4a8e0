"""The rows of lm_eval's table in the order in which one reads them: strategies, oracles, the pool itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from eglr_selectors.metrics import POOL_METRICS

USES_REFERENCE = " (uses reference)"
POOL = "pool"
FIRST = ("greedy", "majority")

Rank = tuple[int, int, str]


class RankedKey(str):
    """A metric's key that sorts by its rank: lm_eval's table sorts the rows by their keys.

    Attributes:
        rank: What it sorts by.
    """

    rank: Rank

    def __lt__(self, other: str) -> bool:
        return self.rank < other.rank if isinstance(other, RankedKey) else str(self) < other

    def __gt__(self, other: str) -> bool:
        return self.rank > other.rank if isinstance(other, RankedKey) else str(self) > other


def ordered_rows(
    metrics: Mapping[str, Any], selects: bool = False, by_default: bool = True
) -> dict[str, Any]:
    """The metrics of one task or group, without undefined rows, under keys that sort as they are read.

    Greedy and majority come first, then the other selectors by name, then oracles, then the pool's own
    figures. A task that no selector of ours has scored is left as it is.

    Args:
        metrics: ``"exact_match,majority"`` and the like to their values, as lm_eval's results have them.
        selects: Whether the task is known to use our filter.
        by_default: Whether nobody has asked for these selectors; a row that was asked for says NaN.
    """
    if not selects and not any(_is_ours(*_split(key)) for key in metrics):
        return dict(metrics)
    undefined = {key for key, value in metrics.items() if isinstance(value, float) and math.isnan(value)}
    ordered: dict[str, Any] = {}
    for key, value in metrics.items():
        metric, row = _split(key)
        if key in undefined and not metric.endswith("_stderr") and (by_default or row == POOL):
            continue
        ranked = RankedKey(key)
        ranked.rank = _rank(metric, row)
        ordered[ranked] = value
    return ordered


def _split(key: str) -> tuple[str, str]:
    metric, _, row = key.partition(",")
    return metric, row


def _is_ours(metric: str, row: str) -> bool:
    return row.endswith(USES_REFERENCE) or (row == POOL and metric in POOL_METRICS)


def _rank(metric: str, row: str) -> Rank:
    if row.removesuffix(USES_REFERENCE) == POOL:
        return (3, POOL_METRICS.index(metric) if metric in POOL_METRICS else len(POOL_METRICS), metric)
    if row in FIRST:
        return (0, FIRST.index(row), metric)
    return (2 if row.endswith(USES_REFERENCE) else 1, 0, f"{row},{metric}")
