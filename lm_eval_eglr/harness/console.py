"""What our runs print under lm_eval's commands: log lines, errors of one line, an interruption."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import eglr_selectors
import lm_eval

import lm_eval_eglr
from lm_eval_eglr.harness.config_files import model_of

DEBUG = "LM_EVAL_EGLR_DEBUG"
LOGGERS = ("lm_eval_eglr", "eglr_selectors")
PACKAGES = tuple(Path(str(package.__file__)).parent for package in (lm_eval_eglr, eglr_selectors))
# Where lm_eval itself refuses what a user has typed.
THEIR_CHECKS = tuple(Path(str(lm_eval.__file__)).parent / name for name in ("config", "_cli", "tasks"))


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get(DEBUG, "").strip().lower() not in ("", "0", "false", "no", "off")


@contextmanager
def log_lines() -> Iterator[None]:
    """Gives our loggers the handlers, format and level of lm_eval's, for the time of a command."""
    theirs = logging.getLogger("lm_eval")
    ours = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate, logger.handlers) for logger in ours]
    for logger in ours:
        logger.setLevel(theirs.level)
        logger.handlers, logger.propagate = list(theirs.handlers), theirs.propagate
    try:
        yield
    finally:
        for logger, (level, propagate, handlers) in zip(ours, before, strict=True):
            logger.setLevel(level)
            logger.propagate, logger.handlers = propagate, handlers


@contextmanager
def one_line_errors(arguments: argparse.Namespace, our_models: tuple[str, ...]) -> Iterator[None]:
    """Turns what a user can mend into one line and an exit code; a fault keeps its traceback.

    Args:
        arguments: Of the command.
        our_models: Names of our model classes. Of other models only errors of ours are shortened.

    Raises:
        SystemExit: Instead of a user's error (1) or an interruption (130).
    """
    model = getattr(arguments, "model", None) or model_of(getattr(arguments, "config", None))
    ours = model in our_models
    try:
        yield
    except KeyboardInterrupt as error:
        if debugging() or not ours:
            raise
        if not error.args:  # else the store has said it
            kept = "rollouts" in (getattr(arguments, "model_args", None) or {})
            print(
                "interrupted: the same command continues with what is missing"
                if kept
                else "interrupted: nothing was kept; rollouts=DIR in --model_args keeps what is finished",
                file=sys.stderr,
            )
        raise SystemExit(130) from None
    except Exception as error:
        if debugging() or not _is_users(error, ours):
            raise
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        print(f"lm_eval: error: {' '.join(text.split())}", file=sys.stderr)
        raise SystemExit(1) from None


def _is_users(error: Exception, ours: bool) -> bool:
    """Whether one of our checks has raised it, or, for a model of ours, one of lm_eval's checks."""
    expected = (
        isinstance(error, ValueError | OSError | ImportError)
        or type(error).__module__.split(".")[0] in LOGGERS
    )
    origin = _origin(error.__traceback__)
    if any(folder in origin.parents for folder in PACKAGES):
        return expected
    checked = ours and any(folder in origin.parents for folder in THEIR_CHECKS)
    return checked and (expected or isinstance(error, KeyError | TypeError))


def _origin(traceback: TracebackType | None) -> Path:
    """The file whose code raised."""
    origin = Path()
    while traceback is not None:
        origin, traceback = Path(traceback.tb_frame.f_code.co_filename), traceback.tb_next
    return origin
