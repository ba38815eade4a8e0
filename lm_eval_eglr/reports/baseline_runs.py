"""Which run of temperature alone belongs beside a run of a grid.

Temperature alone is temperature at one depth: at span 0, or at the deepest recurrences of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eglr_selectors import Cell, ParsedPool
from eglr_selectors.depth_axis import DepthAxis, axis_of, baseline_depth

from lm_eval_eglr.store import Document, Store

# What makes two runs runs of one model, whatever grid, recursion and seed they had.
MODEL_KEYS = ("model", "revision", "commit", "dtype", "weights")


def cells_of(pools: Sequence[ParsedPool]) -> list[Cell]:
    """The cells of all rollouts; pools of a strategy may have different parts of one grid."""
    return [rollout.cell for parsed in pools for rollout in parsed]


def depth_axis(pools: Sequence[ParsedPool]) -> DepthAxis:
    """The depth axis of the pools of a task."""
    return axis_of(cells_of(pools))


def is_grid(pools: Sequence[ParsedPool]) -> bool:
    """Whether the pools have a depth axis and a temperature axis; those of other backends have neither."""
    cells = cells_of(pools)
    baseline = baseline_depth(cells)
    return any(cell.depth != baseline for cell in cells) and all(c.temperature is not None for c in cells)


@dataclass(frozen=True, slots=True, eq=False)
class TemperatureRun:
    """Pools of temperature alone for problems of a grid.

    Attributes:
        name: Of the store that they are from.
        places: Which problems of the grid's task they are for.
        pools: Their pools, in the order of ``places``.
        folder: Of that store.
    """

    name: str
    places: tuple[int, ...]
    pools: tuple[ParsedPool, ...]
    folder: Path


def paired_pools(
    pools: Sequence[ParsedPool], temperature: TemperatureRun | None
) -> tuple[Sequence[ParsedPool], Sequence[ParsedPool]]:
    """Returns a grid's pools and plain samples of the same problems.

    Args:
        pools: The grid's.
        temperature: A run of plain samples; without one the grid's own rollouts of its baseline stand for it.
    """
    if temperature is None:
        baseline = baseline_depth(cells_of(pools))
        return pools, [parsed.subset(lambda rollout: rollout.cell.depth == baseline) for parsed in pools]
    return [pools[i] for i in temperature.places], temperature.pools


def temperature_run(
    store: Store, documents: Sequence[Document], others: Sequence[tuple[Store, Sequence[Document]]]
) -> TemperatureRun | None:
    """Finds the first other store of the same model that has temperature alone for these problems.

    That is span 0 alone, or one number of recurrences that is no smaller than the grid's largest.
    Problems are matched by their number and the tokens of their prompt, so a run with another prompt or
    other worked examples matches none.

    Args:
        store: Of the grid.
        documents: Its documents of one task.
        others: Other stores with their documents of that task, in order of preference.
    """
    cells = cells_of([document.parsed for document in documents])
    if not is_grid([document.parsed for document in documents]):
        return None
    for other, there in others:
        same = all(
            store.manifest.fingerprint.get(key) == other.manifest.fingerprint.get(key) for key in MODEL_KEYS
        )
        if other is store or not same:
            continue
        if not _is_baseline(cells_of([document.parsed for document in there]), cells):
            continue
        by_key = {(document.key.doc_id, document.key.document): document.parsed for document in there}
        keys = [(document.key.doc_id, document.key.document) for document in documents]
        places = tuple(place for place, key in enumerate(keys) if key in by_key)
        if places:
            return TemperatureRun(
                other.folder.name, places, tuple(by_key[keys[i]] for i in places), other.folder
            )
    return None


def _is_baseline(cells: Sequence[Cell], grid: Sequence[Cell]) -> bool:
    """Whether some cells are temperature alone, for a grid."""
    depths = {cell.depth for cell in cells}
    if axis_of(cells) != axis_of(grid) or len(depths) != 1:
        return False
    baseline = baseline_depth(grid)
    return depths == {baseline} or (axis_of(grid).symbol == "R" and min(depths) > baseline)
