"""``eglr report``: the page, and its figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from lm_eval_eglr.cli.output import progress, say
from lm_eval_eglr.cli.select import SelectorOption, Stores
from lm_eval_eglr.cli.sources import open_store, selectors_of
from lm_eval_eglr.store.vocabulary import read_vocabulary

Picture = Literal["svg", "png"]


def report(
    stores: Stores,
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file.")] = Path("report.html"),
    selector: SelectorOption = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder that also gets every figure as a file; needs kaleido.")
    ] = None,
    picture: Annotated[str, typer.Option(help="Kind of these files: svg or png.")] = "svg",
) -> None:
    """Write one self-contained HTML page: figures, tables, and every rollout of every problem.

    Exits with 0, with 1 when a store is damaged, with 2 when an option is wrong.
    """
    if picture not in get_args(Picture):
        raise ValueError(f"picture={picture!r}: expected one of {', '.join(get_args(Picture))}")
    from lm_eval_eglr.reports.page import render_page, run_of  # half a second of imports

    names = selectors_of(selector)
    runs = []
    for folder in stores:
        store = open_store(folder)
        vocabulary = read_vocabulary(folder)
        runs += [run_of(store, task, names, vocabulary, progress) for task in store.tasks]
    output.write_text(render_page(runs), encoding="utf-8")
    say(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)")
    if figures is not None:
        from lm_eval_eglr.reports.pictures import write_pictures

        for path in write_pictures(runs, figures, picture):
            say(f"wrote {path}")
