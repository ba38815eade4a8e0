"""All commands of ``eglr``, and what their failures look like."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

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
    ls,
    report,
    select,
    study,
    verify_store,
)
from lm_eval_eglr.cli.output import log
from lm_eval_eglr.store import StoreError

DAMAGED, WRONG, INTERRUPTED = 1, 2, 130


@dataclass(frozen=True, slots=True)
class Command:
    """A command of ``eglr``.

    Attributes:
        run: What it does.
        examples: Command lines that its help shows.
    """

    run: Callable[..., None]
    examples: tuple[str, ...]


COMMANDS = {
    "demo": Command(demo.demo, ("eglr demo", "eglr demo --limit 20 -o runs/demo")),
    "ls": Command(ls.ls, ("eglr ls", "eglr ls runs --json")),
    "select": Command(
        select.select,
        (
            "eglr select runs/grid",
            "eglr select runs/grid --k 1,4,16",
            "eglr select runs/grid --selector majority,best_of_n@4 --spans 0:2",
        ),
    ),
    "selectors": Command(select.selectors, ("eglr selectors", "eglr selectors --json")),
    "verifiers": Command(select.verifiers, ("eglr verifiers", "eglr verifiers --json")),
    "compare": Command(
        compare.compare,
        (
            "eglr compare runs/grid runs/temperature",
            "eglr compare runs --selector majority,pass@k --k 1,4,16 --format csv",
            "eglr compare runs/grid results/demo --baseline runs/grid/majority",
        ),
    ),
    "axes": Command(
        axes.axes, ("eglr axes runs/grid runs/temperature", "eglr axes runs --table budgets,verdict")
    ),
    "report": Command(
        report.report,
        ("eglr report runs/grid runs/temperature -o report.html", "eglr report runs/grid --figures figures"),
    ),
    "grade": Command(
        grade.grade,
        (
            "eglr grade 12 '12 million'",
            "eglr grade 72 'The answer is 72 clips.' --output --fallbacks phrase --rules integer",
        ),
    ),
    "breakdown": Command(
        breakdown.breakdown, ("eglr breakdown results/demo/samples_math500_eglr_2026-*.jsonl --by level",)
    ),
    "study": Command(study.study, ("eglr study demo --tasks demo_eglr --limit 50 --out study",)),
    "export": Command(
        export.export,
        ("eglr export runs/grid", "eglr export runs/grid --format parquet -o rollouts.parquet"),
    ),
    "import": Command(
        import_rollouts.import_rollouts,
        (
            "eglr import results/demo -o runs/imported",
            "eglr import batch_output.jsonl --requests batch.jsonl -o runs/api",
        ),
    ),
    "calibrate": Command(
        calibrate.calibrate,
        (
            "eglr calibrate --gate-rate 0.1",
            "eglr calibrate --model models/mine --prompts prompts.jsonl --temperature 0.7",
        ),
    ),
    "fit-verifier": Command(
        fit_verifier.fit_verifier, ("eglr fit-verifier runs/train -o verifier.skops --model boosting",)
    ),
    "verify-store": Command(verify_store.verify_store, ("eglr verify-store runs/grid",)),
}

app = typer.Typer(
    name="eglr",
    help="Rollouts of entropy-gated latent recursion: select from them, compare, report, export.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"eglr {version('lm-eval-eglr')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # typer names the option after it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Rollouts of entropy-gated latent recursion: select from them, compare, report, export."""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).splitlines())


def report_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Makes an expected failure of a command one line and an exit code; a fault keeps its traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:  # `eglr ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except StoreError as error:
            log(f"eglr: {_one_line(error)}")
            raise typer.Exit(DAMAGED) from None
        except (ValueError, OSError) as error:
            log(f"eglr: {_one_line(error)}")
            raise typer.Exit(WRONG) from None
        except KeyboardInterrupt:
            log("eglr: interrupted; nothing in a store is lost, and the same command starts again from there")
            raise typer.Exit(INTERRUPTED) from None

    return run


for name, command in COMMANDS.items():
    # A line that begins with \b keeps its breaks.
    shown = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in command.examples)
    app.command(name=name, epilog=shown)(report_errors(command.run))


def main() -> None:
    """Runs the command line."""
    # A command makes millions of objects that stay, of stores above all, and hardly a cycle. To look through
    # them again and again, and through what was imported, took a twentieth of the demo's time.
    gc.freeze()
    gc.set_threshold(100_000)
    app()
