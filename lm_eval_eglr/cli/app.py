"""All commands of ``eglr``, and what their failures look like."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from lm_eval_eglr.cli import (
    axes,
    breakdown,
    calibrate,
    compare,
    demo,
    export,
    fit_verifier,
    grade,
    import_rollouts,
    report,
    select,
    study,
    verify_store,
)
from lm_eval_eglr.cli.output import log
from lm_eval_eglr.store import StoreError

DAMAGED, WRONG, INTERRUPTED = 1, 2, 130
COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo.demo,
    "select": select.select,
    "selectors": select.selectors,
    "compare": compare.compare,
    "axes": axes.axes,
    "report": report.report,
    "grade": grade.grade,
    "breakdown": breakdown.breakdown,
    "study": study.study,
    "export": export.export,
    "import": import_rollouts.import_rollouts,
    "calibrate": calibrate.calibrate,
    "fit-verifier": fit_verifier.fit_verifier,
    "verify-store": verify_store.verify_store,
}

app = typer.Typer(
    name="eglr",
    help="Rollouts of entropy-gated latent recursion: select from them, compare, report, export.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def report_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Makes an expected failure of a command one line and an exit code; a fault keeps its traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:  # `eglr ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except StoreError as error:
            log(f"eglr: {error}")
            raise typer.Exit(DAMAGED) from None
        except (ValueError, OSError) as error:
            log(f"eglr: {error}")
            raise typer.Exit(WRONG) from None
        except KeyboardInterrupt:
            log("eglr: interrupted; nothing in a store is lost, and the same command starts again from there")
            raise typer.Exit(INTERRUPTED) from None

    return run


for name, command in COMMANDS.items():
    app.command(name=name)(report_errors(command))


def main() -> None:
    """Runs the command line."""
    app()
