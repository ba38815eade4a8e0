"""Keeps the tests from reading lm_eval's own task files, twelve thousand in 15 s, again and again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lm_eval.tasks import _index as task_index

UNINDEXED = Path(__file__).parent / "unindexed"


def index_stock_tasks_once() -> None:
    """Lets this process read them once instead of once per run."""
    stock = Path(task_index.__file__).parent
    build = task_index.TaskIndex.build
    known: dict[str, task_index.Entry] = {}

    def build_cached(paths: Iterable[Path], *, resolve_includes: bool = True) -> dict[str, task_index.Entry]:
        first, *others = paths
        if Path(first) != stock or not resolve_includes:
            return build([first, *others], resolve_includes=resolve_includes)
        if not known:
            known.update(build([stock]))
        return {**known, **build(others)}

    task_index.TaskIndex.build = staticmethod(build_cached)


def without_stock_tasks() -> dict[str, str]:
    """The environment variable with which a child process does not read them at all."""
    paths = [str(UNINDEXED), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
