"""What the commands print: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lm_eval_eglr.reports.escaping import for_terminal

Item = TypeVar("Item")
SECONDS_PER_LINE = 10.0


def log(message: str) -> None:
    """Prints a message for people."""
    print(for_terminal(message), file=sys.stderr, flush=True)


def check_writable(path: Path) -> None:
    """Makes the folder of a file that is to be written, before the work that fills it.

    Raises:
        ValueError: If the path is a folder.
        OSError: If the file could not be written there.
    """
    if path.is_dir():
        raise ValueError(f"{path}: a folder, expected a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    there = path.exists()
    path.open("ab").close()
    if not there:
        path.unlink()


def say(text: str) -> None:
    """Prints a sentence of the results; on a terminal its lines break between words, in a pipe nowhere."""
    width = console_width() if sys.stdout.isatty() or "COLUMNS" in os.environ else 10_000
    kept = for_terminal(text).replace("n = ", "n\xa0=\xa0")  # not torn at a line's end
    print(textwrap.fill(kept, width).replace("\xa0", " "))


def print_json(value: Any) -> None:
    """Prints JSON; undefined numbers are null, which every reader of JSON takes."""
    print(json.dumps(without_nan(value), indent=2, allow_nan=False))


def without_nan(value: Any) -> Any:
    """Returns the value with NaN and infinities replaced by ``None``."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(each) for each in value]
    return value


def console_width() -> int:
    """Columns of the terminal, or what ``COLUMNS`` says; 80 in a pipe."""
    return shutil.get_terminal_size((80, 24)).columns


def progress(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yields the items under a bar with rate and time left; in a pipe or a log, a plain line now and then."""
    if sys.stderr.isatty():
        from tqdm.auto import tqdm  # a widget in a notebook

        yield from tqdm(items, desc=what, leave=False, delay=1)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= SECONDS_PER_LINE:
            left = (now - started) / done * (len(items) - done)
            log(f"{what}: {done} of {len(items)}, {done / (now - started):.1f}/s, {left:.0f} s left")
            last = now
        yield item
