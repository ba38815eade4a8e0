"""Pairs of answers that math-verify could not decide, kept so that no command pays for their seconds twice.

They stand in ``undecided.json`` beside the manifest. The file is a memory of the grader and no part of the
rollouts: it may be deleted, which makes the next command try again, and it counts only for its own store.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from eglr_selectors.grading import undecided

from lm_eval_eglr.store.atomic_files import StoreError, read_checked, with_checksum, write_atomically

logger = logging.getLogger(__name__)

NAME = "undecided.json"
MATH_VERIFY = "math-verify"


@contextlib.contextmanager
def remembered_pairs(folder: Path) -> Iterator[None]:
    """Lets the grader know a store's undecided pairs while its answers are graded, and keeps the new ones.

    A store that cannot be written is graded all the same, and a damaged file is made anew.
    """
    try:
        rows = read_undecided(folder)
    except StoreError as error:
        logger.warning("%s; its pairs are tried again", error)
        rows = []
    before = set(undecided.reasons)
    undecided.load(rows)
    loaded = set(undecided.reasons)
    try:
        yield
        new = [row for row in undecided.rows() if (row[0], row[1]) not in loaded]
        if new:
            with contextlib.suppress(StoreError):  # what another process has written meanwhile
                rows = read_undecided(folder)
            pairs = {(row[0], row[1]): row for row in (*rows, *new)}
            content = {MATH_VERIFY: _version(), "pairs": sorted(pairs.values())}
            with contextlib.suppress(OSError):
                scratch = folder / f".undecided.{os.getpid()}.part"
                write_atomically(folder / NAME, with_checksum(content), scratch)
    finally:
        for pair in loaded - before:  # a stranger's store must not decide what is graded in another
            undecided.reasons.pop(pair, None)


def read_undecided(folder: Path) -> list[list[str]]:
    """The pairs of a store, as the grader's ``rows()`` gives them; none if they are of another math-verify.

    Raises:
        StoreError: If the file is damaged or holds something else.
    """
    path = folder / NAME
    if not path.exists():
        return []
    content = read_checked(path)
    rows = content.get("pairs")
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == 3 and all(isinstance(text, str) for text in row) for row in rows
    ):
        raise StoreError(f"{path}: pairs: expected lists of three texts")
    return rows if content.get(MATH_VERIFY) == _version() else []


def _version() -> str:
    return importlib.metadata.version(MATH_VERIFY)
