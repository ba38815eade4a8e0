"""All commands of ``eglr``, and what their failures look like."""

from __future__ import annotations

import sys

import typer

from lm_eval_eglr.cli import (
    calibrate,
    compare,
    demo,
    export,
    fit_verifier,
    report,
    select,
    verify_store,
)
from lm_eval_eglr.cli.output import say
from lm_eval_eglr.store import StoreError

DAMAGED, WRONG, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="eglr",
    help="Rollouts of entropy-gated latent recursion: select from them, compare, report, export.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(select.select)
app.command()(select.selectors)
app.command()(compare.compare)
app.command()(report.report)
app.command()(export.export)
app.command()(calibrate.calibrate)
app.command(name="fit-verifier")(fit_verifier.fit_verifier)
app.command(name="verify-store")(verify_store.verify_store)


def main() -> None:
    """Runs the command; an expected failure is one line and an exit code."""
    try:
        app()
    except StoreError as error:
        say(f"eglr: {error}")
        sys.exit(DAMAGED)
    except (ValueError, OSError) as error:
        say(f"eglr: {error}")
        sys.exit(WRONG)
    except BrokenPipeError:  # `eglr ... | head`
        sys.exit(0)
    except KeyboardInterrupt:
        say("eglr: interrupted; nothing in a store is lost, the same command starts over where it can")
        sys.exit(INTERRUPTED)
