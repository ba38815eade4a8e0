"""Which axis of the grid solves a problem: temperature, depth, both, or only their product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from eglr_selectors.depth_axis import baseline_depth
from eglr_selectors.estimators.estimates import Estimates, accuracy
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import get_selector

Axis = Literal["both", "temperature", "layer", "joint", "none", "unknown"]


def oracle_of(
    pools: Iterable[ParsedPool],
    spans: Sequence[int] | None = None,
    temperatures: Sequence[float] | None = None,
) -> Estimates:
    """Returns 1 where some rollout of a sub-grid is correct, else 0.

    Undefined without a reference, where the sub-grid is empty, and where nothing is correct but
    something could not be graded.

    Args:
        pools: The pools.
        spans: Levels of the depth axis, L or R, of the sub-grid; all by default.
        temperatures: Its temperatures; all by default.
    """
    return accuracy(pools, get_selector("oracle", spans=spans, temperatures=temperatures))


def solved_by(parsed: ParsedPool, baseline: int | None = None) -> Axis:
    """Returns which axis solves a problem.

    ``both``: a cell of the baseline's depth and a cell of temperature 0 (it may be the same one);
    ``temperature`` or ``layer`` (the depth axis, whichever it is): only that axis; ``joint``: only cells of
    another depth and a temperature above 0, or only rollouts that branched off others; ``none``;
    ``unknown`` where nothing is graded or a correct rollout's temperature is not known.

    Args:
        parsed: The pool.
        baseline: Depth of "temperature alone"; by default :attr:`RolloutPool.baseline_depth`. Give the
            grid's where pools hold different parts of one grid.
    """
    if baseline is None:
        baseline = parsed.pool.baseline_depth
    if not any(correct is not None for correct in parsed.correct):
        return "unknown"
    cells = [rollout.cell for rollout, correct in zip(parsed, parsed.correct, strict=True) if correct]
    if not cells:
        return "unknown" if None in parsed.correct else "none"
    if any(cell.temperature is None for cell in cells):
        return "unknown"
    by_temperature = any(cell.depth == baseline and not cell.path for cell in cells)
    by_layer = any(cell.temperature == 0 and not cell.path for cell in cells)
    if by_temperature and by_layer:
        return "both"
    if by_temperature:
        return "temperature"
    return "layer" if by_layer else "joint"


def decompose(pools: Iterable[ParsedPool]) -> dict[Axis, int]:
    """Counts the problems by :func:`solved_by`; the counts add up to the number of problems.

    Pools may hold different parts of one grid: the baseline is that of all of them.
    """
    pools = list(pools)
    baseline = baseline_depth(rollout.cell for parsed in pools for rollout in parsed)
    counts = Counter(solved_by(parsed, baseline) for parsed in pools)
    return {axis: counts[axis] for axis in get_args(Axis)}
