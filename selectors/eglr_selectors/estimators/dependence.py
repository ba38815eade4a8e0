"""How much alike two rollouts of a problem succeed, by what the two have in common (this project)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from eglr_selectors.estimators.resampling import Interval
from eglr_selectors.options import check_count
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.pool import Cell

Kinship = Literal["same span", "same temperature column", "neither", "greedy spans"]


@dataclass(frozen=True, slots=True)
class Dependence:
    """Correlation of the successes of two rollouts of a problem, over problems.

    Attributes:
        correlation: Mean over pairs of cells of Pearson's correlation (phi), with its bootstrap interval
            over problems. 1: the two always solve the same problems; 0: one says nothing of the other.
        pairs: Pairs of cells that it is the mean of.
    """

    correlation: Interval
    pairs: int


def dependence(
    pools: Sequence[ParsedPool], *, confidence: float = 0.95, samples: int = 1000, seed: int = 0
) -> dict[Kinship, Dependence]:
    """Returns the correlation of successes by what two cells of the grid have in common.

    Of the cells above temperature 0: ``same span`` (of either depth axis; other samples), ``same temperature
    column`` (other depths), ``neither``. At temperature 0: ``greedy spans``. What could not be graded counts
    as wrong.

    Args:
        pools: Of one grid: the same cells for every problem.
        confidence: Coverage of the intervals.
        samples: Resamples of the problems.
        seed: Seed of the resampling.

    Raises:
        ValueError: If the pools have other cells than each other.
    """
    check_count("samples", samples, low=1)
    cells, right = success_matrix(pools)
    members: dict[Kinship, list[tuple[int, int]]] = {kind: [] for kind in get_args(Kinship)}
    for i in range(len(cells)):
        for j in range(i):
            kind = _kinship(cells[i], cells[j])
            if kind is not None:
                members[kind].append((i, j))
    rng = np.random.default_rng(seed)
    problems = len(right)
    estimates = {
        kind: [_mean_at(np.atleast_2d(_correlations(right)), pairs)] for kind, pairs in members.items()
    }
    for _ in range(samples if problems else 0):
        drawn = _correlations(right[rng.integers(problems, size=problems)])
        for kind, pairs in members.items():
            estimates[kind].append(_mean_at(drawn, pairs))
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    found: dict[Kinship, Dependence] = {}
    for kind, values in estimates.items():
        if members[kind] and not np.isnan(values[0]):
            low, high = np.nanquantile(values[1:], ends)
            interval = Interval(values[0], float(low), float(high), problems)
            found[kind] = Dependence(interval, len(members[kind]))
    return found


def success_matrix(pools: Sequence[ParsedPool]) -> tuple[tuple[Cell, ...], np.ndarray]:
    """Returns the cells of a grid and who solved what, ``[problems, cells]``, 1 or 0.

    Raises:
        ValueError: If the pools have other cells than each other.
    """
    cells = tuple(rollout.cell for rollout in pools[0]) if pools else ()
    for place, parsed in enumerate(pools):
        if tuple(rollout.cell for rollout in parsed) != cells:
            raise ValueError(f"pools[{place}]: expected the cells of pools[0], {len(cells)} of them")
    right = [[correct is True for correct in parsed.correct] for parsed in pools]
    return cells, np.array(right, dtype=np.float64).reshape(len(pools), len(cells))


def _kinship(a: Cell, b: Cell) -> Kinship | None:
    if a.temperature is None or b.temperature is None:
        return None
    if a.temperature == 0 and b.temperature == 0:
        return "greedy spans"
    if 0 in (a.temperature, b.temperature):
        return None
    if a.depth == b.depth:
        return "same span"
    return "same temperature column" if (a.temperature, a.sample) == (b.temperature, b.sample) else "neither"


def _correlations(right: np.ndarray) -> np.ndarray:
    with np.errstate(
        invalid="ignore", divide="ignore"
    ):  # a cell that solves all or nothing correlates with none
        return np.atleast_2d(np.corrcoef(right, rowvar=False))


def _mean_at(matrix: np.ndarray, pairs: Sequence[tuple[int, int]]) -> float:
    values = matrix[tuple(np.transpose(pairs))] if pairs else np.array([])
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
