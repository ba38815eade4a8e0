"""Reading what the commands are given: stores, folders of stores, results files, lists of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from eglr_selectors import default_selectors, split_specifications
from eglr_selectors.estimators.named import names_at

from lm_eval_eglr.cli.output import log, progress
from lm_eval_eglr.importing import format_of, read_rollouts, store_in_memory
from lm_eval_eglr.importing.lm_eval_output import runs_in
from lm_eval_eglr.reports.selector_rows import StrategyRow, bind_all
from lm_eval_eglr.store import Store, read_store
from lm_eval_eglr.store.manifest import NAME as MANIFEST

DEPTH = 4
"""How many folders below the one that was named a store may lie."""

RESULTS = "results_*.json"
"""What lm_eval calls its results files: by date alone."""


def find_stores(paths: Iterable[Path]) -> list[Path]:
    """Returns the stores that were named, and those below a folder that is none itself.

    What holds no store is returned as it is: it may be rollouts of another tool, and reading it says so.
    """
    found: dict[Path, None] = {}
    for path in paths:
        found |= dict.fromkeys(_stores_below(path) or [path])
    return list(found)


def find_sources(paths: Iterable[Path]) -> list[Path]:
    """Returns what is to be compared: what was named, the stores below a folder, lm_eval's output folders.

    Raises:
        ValueError: If a path is not there.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: there is no such file or folder")
        below = _stores_below(path)
        if path.is_dir() and not below:
            below = [run.folder for run in runs_in(path)]
        found |= dict.fromkeys(below or [path])
    return list(found)


def _stores_below(folder: Path) -> list[Path]:
    """The stores in the nearest folders that hold any: the folder itself, or some of those below it."""
    for depth in range(DEPTH):
        found = sorted(folder.glob("/".join(["*"] * depth + [MANIFEST])))
        if found:
            return [path.parent for path in found]
    return []


def names_of(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns a short name for every source: as much of the end of its path as no other has."""
    parts = {path: _parts(path) for path in paths}
    names = {}
    for path, own in parts.items():
        others = [each for other, each in parts.items() if other != path]
        size = 1
        while size < len(own) and any(each[-size:] == own[-size:] for each in others):
            size += 1
        names[path] = "/".join(own[-size:])
    return names


def _parts(path: Path) -> tuple[str, ...]:
    # lm_eval names its files by date alone; the folder, which it calls after the model, says more.
    whole = path.resolve()
    if path.is_file() and path.match(RESULTS):
        return (*whole.parent.parts[:-1], whole.stem.removeprefix("results_"), whole.parent.name)
    return whole.parts


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


def foreign_format(path: Path) -> str | None:
    """The format of another tool's rollouts; ``None`` if a path is a store or nothing that is known.

    Raises:
        ValueError: If it is an output folder of lm_eval that has results alone.
    """
    if not path.exists() or (path / MANIFEST).exists():
        return None
    form = format_of(path)
    if form is None and path.is_dir() and runs_in(path):
        raise ValueError(f"{path}: results of lm_eval without samples, which --log_samples writes")
    return form


def imported_store(path: Path) -> Store | None:
    """Reads rollouts that another tool wrote, such as lm_eval's output folder; ``None`` if they are none.

    Raises:
        ValueError: If they cannot be read.
    """
    form = foreign_format(path)
    if form is None and not path.is_file():
        return None
    imported = read_rollouts([path])  # of a file of no known format it says what it is instead
    for note in imported.notes:
        log(note)
    return store_in_memory(path, imported, form)


def selectors_of(text: str | None, ks: Sequence[int] = ()) -> list[str]:
    """Reads ``--selector`` with ``--k``; without both, every selector that needs no options.

    Raises:
        ValueError: If one is unknown or its options are wrong.
    """
    if text is None:
        return names_at(("pass@k", "maj@k"), ks) if ks else default_selectors()
    names = names_at(split_specifications(text), ks)
    if not names:
        raise ValueError(f"selector={text!r}: expected at least one name")
    bind_all(names)
    return names


def without_undefined(rows: Sequence[StrategyRow], asked: str | None) -> list[StrategyRow]:
    """Leaves out strategies that could be applied to no problem, unless they were asked for by name."""
    if asked is not None or all(row.undefined_everywhere for row in rows):
        return list(rows)
    for name in dict.fromkeys(row.strategy for row in rows if row.undefined_everywhere):
        reasons = {row.reason for row in rows if row.strategy == name and row.reason}
        log(f"without {name}: {'; '.join(sorted(reasons)) or 'undefined on every problem'}")
    return [row for row in rows if not row.undefined_everywhere]


def parse_sizes(text: str | None) -> list[int]:
    """Reads ``--k 1,4,16``.

    Raises:
        ValueError: If a part is no number of rollouts.
    """
    parts = [] if text is None else text.split(",")
    if not all(part.strip().isdecimal() and int(part) >= 1 for part in parts):
        raise ValueError(f"k={text!r}: expected numbers of rollouts separated by commas, such as 1,4,16")
    return [int(part) for part in parts]


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
