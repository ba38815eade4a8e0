"""Keeps the tests from reading lm_eval's own task files, twelve thousand in 15 s, again and again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lm_eval.tasks import _index as task_index

UNINDEXED = Path(__file__).parent / "unindexed"


def leave_out_stock_tasks() -> None:
    """Lets this process not read them at all: no test runs one, and test_packaging looks for them once."""
    stock = Path(task_index.__file__).parent
    build = task_index.TaskIndex.build

    def build_others(paths: Iterable[Path], *, resolve_includes: bool = True) -> dict[str, task_index.Entry]:
        others = [path for path in paths if Path(path) != stock]
        return build(others, resolve_includes=resolve_includes)

    task_index.TaskIndex.build = staticmethod(build_others)


def without_stock_tasks() -> dict[str, str]:
    """The environment variable with which a child process does not read them either."""
    paths = [str(UNINDEXED), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
