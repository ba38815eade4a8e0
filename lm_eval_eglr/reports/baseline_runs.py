"""Which run of temperature alone belongs beside a run of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eglr_selectors import ParsedPool

from lm_eval_eglr.store import Document, Store

# What makes two runs runs of one model, whatever grid, recursion and seed they had.
MODEL_KEYS = ("model", "revision", "commit", "dtype", "weights")


def is_grid(pools: Sequence[ParsedPool]) -> bool:
    """Whether the pools have a layer axis and a temperature axis; those of other backends have neither."""
    cells = [rollout.cell for parsed in pools for rollout in parsed]
    return any(cell.span > 0 for cell in cells) and all(cell.temperature is not None for cell in cells)


@dataclass(frozen=True, slots=True, eq=False)
class TemperatureRun:
    """Pools of span 0 for problems of a grid.

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
        temperature: A run of plain samples; without one the grid's own rollouts of span 0 stand for it.
    """
    if temperature is None:
        return pools, [parsed.subset(lambda rollout: rollout.cell.span == 0) for parsed in pools]
    return [pools[i] for i in temperature.places], temperature.pools


def temperature_run(
    store: Store, documents: Sequence[Document], others: Sequence[tuple[Store, Sequence[Document]]]
) -> TemperatureRun | None:
    """Finds the first other store of the same model that has span 0 alone for these problems.

    Problems are matched by their number and the tokens of their prompt, so a run with another prompt or
    other worked examples matches none.

    Args:
        store: Of the grid.
        documents: Its documents of one task.
        others: Other stores with their documents of that task, in order of preference.
    """
    if not is_grid([document.parsed for document in documents]):
        return None
    for other, there in others:
        same = all(
            store.manifest.fingerprint.get(key) == other.manifest.fingerprint.get(key) for key in MODEL_KEYS
        )
        if other is store or not same:
            continue
        if any(rollout.cell.span > 0 for document in there for rollout in document.parsed):
            continue
        by_key = {(document.key.doc_id, document.key.document): document.parsed for document in there}
        keys = [(document.key.doc_id, document.key.document) for document in documents]
        places = tuple(place for place, key in enumerate(keys) if key in by_key)
        if places:
            return TemperatureRun(
                other.folder.name, places, tuple(by_key[keys[i]] for i in places), other.folder
            )
    return None
