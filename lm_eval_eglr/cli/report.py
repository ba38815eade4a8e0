"""``eglr report``: the page, and its figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from lm_eval_eglr.cli.output import check_writable, log, progress
from lm_eval_eglr.cli.select import SelectorOption, Stores
from lm_eval_eglr.cli.sources import find_stores, open_store, selectors_of
from lm_eval_eglr.store import Document, Store
from lm_eval_eglr.store.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from lm_eval_eglr.reports.page import Run

REST = 6e6
"""Bytes of a page that are not pools: the plotting library, figures, tables."""

MAX_SIZE = 30.0
"""Size in MB that a page is kept under, where users give none."""

Picture = Literal["svg", "png"]


def report(
    stores: Stores,
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file.")] = Path("report.html"),
    selector: SelectorOption = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder that also gets every figure as a file; needs kaleido.")
    ] = None,
    max_size: Annotated[
        float,
        typer.Option(help="Size in MB that the page is kept under by saying less of single tokens."),
    ] = MAX_SIZE,
    picture: Annotated[str, typer.Option(help="Kind of these files: svg or png.")] = "svg",
) -> None:
    """Write one self-contained HTML page: figures, tables, and every rollout of every problem.

    Exits with 0, with 1 when a store is damaged, with 2 when an option is wrong.
    """
    if picture not in get_args(Picture):
        raise ValueError(f"picture={picture!r}: expected one of {', '.join(get_args(Picture))}")
    if not max_size > 0:
        raise ValueError(f"max_size={max_size!r}: expected a number > 0")
    names = selectors_of(selector)
    check_writable(output)
    opened = [open_store(folder) for folder in find_stores(stores)]
    tables = [(store, task, store.documents(task)) for store in opened for task in store.tasks]
    runs = write_page(tables, output, names, max_size)
    if figures is not None:
        from lm_eval_eglr.reports.pictures import write_pictures

        for path in write_pictures(runs, figures, picture):
            log(f"wrote {path}")


def write_page(
    tables: Sequence[tuple[Store, str, list[Document]]], output: Path, selectors: list[str], max_size: float
) -> list[Run]:
    """Writes the page of some tasks of stores, with their documents; returns what is on it.

    Args:
        tables: The stores, each with one of its tasks and the documents of that.
        output: The HTML file.
        selectors: Names of the selectors to compare.
        max_size: Size in MB that the page is kept under.
    """
    from lm_eval_eglr.reports.baseline_runs import temperature_run
    from lm_eval_eglr.reports.page import render_page, run_of  # half a second of imports

    weights = [sum(len(r.tokens) for each in documents for r in each.parsed) for _, _, documents in tables]
    runs = []
    for (store, task, documents), weight in zip(tables, weights, strict=True):
        others = [(other, theirs) for other, name, theirs in tables if name == task]
        temperature = temperature_run(store, documents, others)
        vocabulary = read_vocabulary(store.folder)
        share = weight / sum(weights) if any(weights) else 1 / len(tables)
        most = share * (max_size * 1e6 - REST)
        runs.append(run_of(store, task, documents, selectors, vocabulary, progress, temperature, most))
    output.write_text(render_page(runs), encoding="utf-8")
    log(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return runs
