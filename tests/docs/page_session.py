"""Runs the blocks of one page, in order, in one folder: as a reader who follows it to the letter."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from markdown_blocks import Block

TIMEOUT = 1800  # seconds; a guard against a command that hangs, never a measurement
ELLIPSIS = "..."
NUMBER = re.compile(r"(?<![\w.@#/-])[+−-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w@/])")


class PageSession:
    """One page's workspace.

    Args:
        folder: The working directory of every block.
        environment: The environment of shell blocks.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        # What a page installs is its own, is built with what is here, and asks no package index.
        installed = tempfile.mkdtemp(prefix="installed-", dir=folder)
        own = {
            "PIP_TARGET": installed,
            "PYTHONPATH": installed,
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
        }
        self.environment = environment | own
        self.names: dict[str, Any] = {"__name__": "page"}

    def run(self, block: Block) -> str:
        """Runs one block; returns what it printed to standard output.

        Raises:
            AssertionError: If a shell block fails. A Python block raises what it raises.
        """
        return self._python(block) if block.language == "python" else self._shell(block)

    def _python(self, block: Block) -> str:
        printed = io.StringIO()
        before = Path.cwd()
        os.chdir(self.folder)
        # Line numbers of a traceback are those of the page.
        code = compile("\n" * block.line + block.code, block.page, "exec")
        try:
            with contextlib.redirect_stdout(printed):
                exec(code, self.names)
        finally:
            os.chdir(before)
        return printed.getvalue()

    def _shell(self, block: Block) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.code],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"{block} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout


def environment_of(scripts: Path) -> dict[str, str]:
    """A reader's environment: this interpreter's scripts first, no network, one thread, a plain terminal."""
    path = os.pathsep.join([str(scripts), str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV_"))}
    return kept | {
        "PATH": path,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "120",
        "NO_COLOR": "1",
        "TERM": "dumb",
    }


def matches(wanted: str, printed: str, any_figures: bool = False) -> bool:
    """Whether a page's output block is what was printed.

    Blanks count as one, and ``...`` stands for anything, lines included, as in doctest.

    Args:
        wanted: The block.
        printed: What was printed.
        any_figures: Whether numbers may differ a little and lines may change places: figures of a model,
            whose last bits, and so whose draws, are not the same on every processor, and tables sorted by
            them.
    """
    if not any_figures:
        parts = [re.escape(_plain(part)) for part in wanted.split(ELLIPSIS)]
        return re.fullmatch(r"\s*.*?\s*".join(parts), _plain(printed), re.DOTALL) is not None
    if ELLIPSIS in wanted:
        parts = [NUMBER.sub("#", _plain(part)) for part in wanted.split(ELLIPSIS)]
        pattern = r"\s*.*?\s*".join(re.escape(part).replace(r"\#", f"({NUMBER.pattern})") for part in parts)
        found = re.fullmatch(pattern, _plain(printed), re.DOTALL)
        numbers = [number for part in wanted.split(ELLIPSIS) for number in _numbers(_plain(part))]
        return found is not None and all(map(near, numbers, map(_value, found.groups())))
    ours, theirs = (sorted(map(_form, filter(str.strip, text.splitlines()))) for text in (wanted, printed))
    return len(ours) == len(theirs) and all(
        form == other and all(map(near, numbers, others))
        for (form, numbers), (other, others) in zip(ours, theirs, strict=True)
    )


def near(wanted: float, printed: float) -> bool:
    """Whether a figure may be that of another processor: a few problems of forty more or less.

    Shares differ by at most 0.12, percents by 12, anything else by 15 %.
    """
    largest = max(abs(wanted), abs(printed))
    return abs(wanted - printed) <= max(0.15 * largest, 12 if largest > 1.5 else 0.12)


def _form(line: str) -> tuple[str, list[float]]:
    """A line without its numbers, and these."""
    plain = _plain(line)
    return NUMBER.sub("#", plain), _numbers(plain)


def _numbers(text: str) -> list[float]:
    return [_value(found) for found in NUMBER.findall(text)]


def _value(text: str) -> float:
    return float(text.replace("−", "-"))


def _plain(text: str) -> str:
    text = re.sub(r"[-─━]{3,}:?", "---", text)  # a table's rules are as wide as its figures
    text = re.sub(r"█+", "█", text)  # and a bar is a figure
    return re.sub(r"\s+", " ", text).strip()
