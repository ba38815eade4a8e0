"""``eglr import``: rollouts that other tools made, as a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from eglr_selectors import Rules

from lm_eval_eglr.cli.output import log
from lm_eval_eglr.importing import FORMATS, ImportOptions, format_of, open_rollouts, write_store


def import_rollouts(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Files or folders with rollouts of one model."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="STORE", help="Folder of the store.")],
    form: Annotated[
        str | None,
        typer.Option("--format", help=f"One of {', '.join(FORMATS)}. [default: told by the content]"),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Name of the task. [default: the source's]")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model. [default: the source's]")] = None,
    rules: Annotated[
        str | None,
        typer.Option(help="When answers are equal: math, integer, number, quantity or text. [default: math]"),
    ] = None,
    fallbacks: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME]",
            help="Where to look for an answer without a box: hash, phrase, last_number; or none. "
            "[default: all three]",
        ),
    ] = None,
    requests: Annotated[
        Path | None, typer.Option(help="For a batch's output: the file of its requests, with the prompts.")
    ] = None,
) -> None:
    """Make a store of rollouts that lm_eval, lighteval, Inspect, search-and-learn or a server wrote.

    Every selector, table and page then works on them. The same command continues an import that was stopped.
    Exits with 0, with 1 when the folder holds other rollouts, with 2 when a source or an option is wrong.
    """
    options = ImportOptions(
        task,
        model,
        None if rules is None else Rules.named(rules),
        None if fallbacks is None else _names(fallbacks),
        requests,
    )
    source = open_rollouts(sources, form, options)
    for note in source.notes:
        log(note)
    forms = {form or format_of(path) for path in sources}
    written = write_store(output, source, forms.pop() if len(forms) == 1 else None)
    counts = source.pools.counts
    already = f", {counts.pools - written} were there already" if written < counts.pools else ""
    log(f"{output}: {_counted(counts.rollouts, 'rollout')} of {_counted(counts.pools, 'problem')}{already}")
    if counts.unscored:
        have = "has" if counts.unscored == 1 else "have"
        those = f"{_counted(counts.unscored, 'problem')} {have}"
        log(f"{those} no reference answer, so selections there are not scored")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    return () if names == ("none",) else names
