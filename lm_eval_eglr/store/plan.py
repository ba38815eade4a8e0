"""Which pools a run set out to make, so that a reader can tell a part from the whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lm_eval_eglr.store.durable import StoreError, read_sealed, seal, write_whole
from lm_eval_eglr.store.head import Place

PATTERN = "plan.*.json"


def write_plan(folder: Path, rank: int, places: Iterable[Place], scratch: str) -> None:
    """Adds places to what this process has planned before."""
    path = folder / PATTERN.replace("*", str(rank))
    known = set(_read(path)) if path.is_file() else set()
    wanted = known | set(places)
    if wanted != known:
        by_task: dict[str, list[list[int]]] = {}
        for task, doc_id, repeat in sorted(wanted):
            by_task.setdefault(task, []).append([doc_id, repeat])
        write_whole(path, seal({"pools": by_task}), folder / scratch)


def read_plans(folder: Path) -> set[Place]:
    """Returns all places that any process has planned.

    Raises:
        StoreError: If a plan is damaged.
    """
    return {place for path in sorted(folder.glob(PATTERN)) for place in _read(path)}


def _read(path: Path) -> list[Place]:
    pools: Any = read_sealed(path).get("pools")
    try:
        return [
            (task, int(doc_id), int(repeat)) for task, entries in pools.items() for doc_id, repeat in entries
        ]
    except (AttributeError, TypeError, ValueError):
        raise StoreError(f"{path}: not a plan of a rollout store") from None
