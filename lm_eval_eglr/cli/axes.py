"""``eglr axes``: what each axis of a grid is worth, from stores, without a model."""

from __future__ import annotations

from typing import Annotated

import typer

from lm_eval_eglr.cli.output import progress
from lm_eval_eglr.cli.select import Stores
from lm_eval_eglr.cli.sources import find_stores, open_store
from lm_eval_eglr.reports.tables import TEXT_FORMATS, print_rich, render

FORMATS = ("rich", *TEXT_FORMATS)
VERDICT = "verdict"


def axes(
    stores: Stores,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            metavar="NAME[,NAME]",
            help="Only these of structure, axes, budgets, cost, selectors, spans, greedy, correlations, "
            "worth, changes, halves, verdict. [default: all]",
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "rich",
) -> None:
    """Say what each axis of a grid is worth: tables and a verdict of grids beside runs of temperature alone.

    Each grid is compared with the first run of span 0, or of its deepest recurrences, that has its problems,
    prompts and model. Exits with 0, with 1 when a store is damaged, with 2 when an option is wrong.
    """
    if form not in FORMATS:
        raise ValueError(f"format={form!r}: expected one of {', '.join(FORMATS)}")
    from lm_eval_eglr.study.matched import match_stores
    from lm_eval_eglr.study.tables import TABLES, titles
    from lm_eval_eglr.study.verdict import verdict

    known = (*TABLES, VERDICT)
    names = list(known) if table is None else [name.strip() for name in table.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"table={name!r}: expected some of {', '.join(known)}")
    studies = match_stores([open_store(folder) for folder in find_stores(stores)])
    headings = titles(studies)
    for name in progress(names, "Computing tables"):
        if len(names) > 1:
            print(f"{headings.get(name, 'Verdict')}\n")
        if name == VERDICT:
            print("\n".join(verdict(studies)))
        elif form == "rich":
            print_rich(TABLES[name](studies))
        else:
            print(render(TABLES[name](studies), form), end="")
        if len(names) > 1:
            print()
