"""Reading what the commands are given: stores, results files, lists of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eglr_selectors import default_selectors, split_specifications

from lm_eval_eglr.cli.output import log, progress
from lm_eval_eglr.importing import format_of, read_rollouts, store_in_memory
from lm_eval_eglr.reports.selector_rows import bind_all
from lm_eval_eglr.store import Store, read_store
from lm_eval_eglr.store.manifest import NAME as MANIFEST


def open_store(folder: Path) -> Store:
    """Reads a store, or rollouts of another tool, and says aloud if a store lacks some of its pools."""
    store = imported_store(folder)
    if store is None:
        store = read_store(folder, lambda paths: progress(paths, f"Reading {folder.name}"))
    if not store.pools:
        raise ValueError(f"{folder}: the store holds no rollouts yet")
    if store.missing:
        count = len(store.missing)
        log(
            f"{folder}: {count} of {count + len(store.pools)} pools are missing, so the figures are of a "
            "part only, the quicker problems first; run the same lm_eval command again to complete it"
        )
    return store


def imported_store(path: Path) -> Store | None:
    """Reads rollouts that another tool wrote, such as lm_eval's output folder; ``None`` if they are none.

    Raises:
        ValueError: If they cannot be read.
    """
    if not path.exists() or (path / MANIFEST).is_file():
        return None
    form = format_of(path)
    if form is None:
        return None
    imported = read_rollouts([path], form)
    for note in imported.notes:
        log(note)
    return store_in_memory(path, imported, form)


def selectors_of(text: str | None) -> list[str]:
    """Reads ``--selector``; without it, every selector that needs no options.

    Raises:
        ValueError: If one is unknown or its options are wrong.
    """
    if text is None:
        return default_selectors()
    names = split_specifications(text)
    if not names:
        raise ValueError(f"selector={text!r}: expected at least one name")
    bind_all(names)
    return names


def parse_numbers(name: str, text: str | None) -> list[float] | None:
    """Reads ``0:2:4``.

    Raises:
        ValueError: If a part is no number.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(":")]
    except ValueError:
        raise ValueError(f'{name}={text!r}: expected numbers separated by colons, such as "0:2:4"') from None


def tasks_of(store: Store, task: str | None) -> Sequence[str]:
    """The tasks to look at: all, or the one that was named."""
    if task is not None and task not in store.tasks:
        raise ValueError(f"task={task!r}: {store.folder} has {', '.join(store.tasks)}")
    return store.tasks if task is None else [task]
