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
FIGURE = re.compile(r"(?:\\-)?\d+\\\.\d+")  # in escaped text


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
        any_figures: Whether any number with a decimal point may stand for another: figures of a model,
            whose last bits, and so whose draws, are not the same on every processor.
    """
    parts = [re.escape(_plain(part)) for part in wanted.split(ELLIPSIS)]
    if any_figures:
        parts = [FIGURE.sub(lambda _: r"-?\d+\.\d+", part) for part in parts]
    return re.fullmatch(r"\s*.*?\s*".join(parts), _plain(printed), re.DOTALL) is not None


def _plain(text: str) -> str:
    text = re.sub(r"[-─━]{3,}:?", "---", text)  # a table's rules are as wide as its figures
    return re.sub(r"\s+", " ", text).strip()
