"""Spares a child process the 15 s in which lm_eval reads its own twelve thousand task files.

Python imports this at start-up where its folder is in PYTHONPATH. Nothing but that scan is touched, so that
what is found of this project was found as in any other process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

glob = Path.glob


def without_stock_tasks(self: Path, pattern: Any, **options: Any) -> Iterator[Path]:
    """As ``Path.glob``, but finds no YAML below ``lm_eval/tasks``."""
    if self.parts[-2:] == ("lm_eval", "tasks") and pattern == "**/*.yaml":
        return iter(())
    return iter(glob(self, pattern, **options))


Path.glob = without_stock_tasks  # type: ignore[assignment, method-assign]
