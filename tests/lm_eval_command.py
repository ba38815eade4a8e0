"""``lm_eval`` as typed, run in this process: its own reading of arguments, its exit code, what it prints."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lm_eval.utils
import pytest

from lm_eval_eglr.harness import plugin

DEMO = "--model hf-eglr --tasks demo_eglr --limit 2 --apply_chat_template --batch_size 64 --device cpu"


@dataclass
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a refusal, which nothing but log lines stands before."""
        *_, last = self.err.rstrip().split("\n")
        assert "Traceback" not in self.err, self.err
        assert last.startswith("lm_eval: error: "), self.err
        return last.removeprefix("lm_eval: error: ")

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Filter and metric of every row of the table."""
        cells = [line.split("|") for line in self.out.splitlines() if line.startswith("|")][2:]
        return [(row[3].strip(), row[5].strip()) for row in cells]


Command = Callable[..., Done]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs ``lm_eval ARGUMENTS`` in an empty folder; arguments are split at blanks unless given apart."""
    plugin.install()
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("lm_eval")
    before = (logger.level, logger.propagate, list(logger.handlers))

    def run(text: str, *others: str) -> Done:
        from lm_eval.__main__ import cli_evaluate

        # Each command gets a handler that writes to the standard error of its time.
        monkeypatch.setattr(lm_eval.utils, "_LOGGING_CONFIGURED", False)
        logger.handlers = []
        monkeypatch.setattr(sys, "argv", ["lm_eval", *text.split(), *others])
        capfd.readouterr()
        code = 0
        try:
            cli_evaluate()
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    yield run
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1], before[2]
