"""What is measured of one problem: whether a selection is right, and the shares and cost of its whole pool.

The live table, stored tables and estimators all take their figures from here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Literal

from eglr_selectors.parsed import ParsedPool
from eglr_selectors.selection import Selection
from eglr_selectors.unit_costs import shared_plain_flops

Outcome = Literal["correct", "wrong", "no_answer", "ungraded", "undefined", "no_reference"]
"""What became of a rollout or a selection; a selection alone can be ``undefined``."""

POOL_METRICS = ("truncated", "no_answer", "ungraded", "cost_vs_shared_plain", "ties")
"""Names of what :func:`pool_metrics` measures, in the order of every table."""


class PoolMetrics(dict[str, float]):
    """Measures by name. ``cost_vs_plain``, the former name of a cost, still works and warns."""

    def __init__(self, metrics: Mapping[str, float], cost_vs_plain: float = math.nan) -> None:
        super().__init__(metrics)
        self._cost_vs_plain = cost_vs_plain

    def __missing__(self, name: str) -> float:
        if name != "cost_vs_plain" or math.isnan(self._cost_vs_plain):
            raise KeyError(name)
        warnings.warn(
            "cost_vs_plain compares with samples that share nothing; use cost_vs_shared_plain",
            DeprecationWarning,
            stacklevel=2,
        )
        return self._cost_vs_plain


def rollout_outcome(parsed: ParsedPool, index: int) -> Outcome:
    """Returns what became of one rollout."""
    if parsed.reference is None:
        return "no_reference"
    if parsed.answers[index] is None:
        return "no_answer"
    correct = parsed.correct[index]
    if correct is None:
        return "ungraded"
    return "correct" if correct else "wrong"


def selection_outcome(parsed: ParsedPool, selection: Selection) -> Outcome:
    """Returns what became of a selection. A pool without any answer is wrong, not undefined."""
    if not selection.defined:
        return "undefined"
    if parsed.reference is None:
        return "no_reference"
    return "no_answer" if selection.index is None else rollout_outcome(parsed, selection.index)


def correctness(parsed: ParsedPool, selection: Selection) -> float:
    """Returns 1 or 0; NaN where the selector is not defined on this pool, or there is no reference.

    An answer that could not be graded counts 0, and is shown apart as ``ungraded``.
    """
    outcome = selection_outcome(parsed, selection)
    return math.nan if outcome in ("undefined", "no_reference") else float(outcome == "correct")


def pool_metrics(parsed: ParsedPool) -> PoolMetrics:
    """Returns shares over all rollouts of a pool, and what it cost over plain samples that share as much.

    Returns:
        ``truncated`` (NaN where a backend does not say why its texts ended), ``no_answer``, ``ungraded``;
        ``cost_vs_shared_plain`` and ``ties``, a share of tokens, only where the pool knows its cost. The
        cost is the pool's FLOPs over those of plain samples that share as many prefixes: 1.1 means that
        recursion added a tenth. It is left out on axis R, where no level is the plain model: compare FLOPs.

    Raises:
        ValueError: If the pool is empty.
    """
    count = len(parsed)
    if not count:
        raise ValueError("pool: expected at least one rollout")
    unknown = any(rollout.finish_reason == "unknown" for rollout in parsed)
    metrics = {
        "truncated": math.nan if unknown else sum(rollout.truncated for rollout in parsed) / count,
        "no_answer": (count - len(parsed.answered)) / count,
        "ungraded": sum(parsed.correct[i] is None for i in parsed.answered) / count,
    }
    cost = parsed.pool.cost
    if cost is None or not cost.plain_flops:
        return PoolMetrics(metrics)
    metrics["ties"] = parsed.pool.tie_share
    if parsed.pool.axis.symbol == "R":
        return PoolMetrics(metrics)
    plain = shared_plain_flops(parsed)
    if not math.isnan(plain):
        metrics["cost_vs_shared_plain"] = cost.flops / plain
    return PoolMetrics(metrics, cost.flops / cost.plain_flops)
