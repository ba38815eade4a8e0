"""``eglr breakdown``: accuracy per subject, level or kind of fault, from logged samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lm_eval_eglr.reports.breakdown import COLUMNS, as_markdown, read_samples
from lm_eval_eglr.reports.breakdown import breakdown as group_by


def breakdown(
    samples: Annotated[
        list[Path],
        typer.Argument(metavar="SAMPLES...", help="samples_*.jsonl files of one task, of one run."),
    ],
    by: Annotated[
        str | None, typer.Option("--by", help=f"One column: {', '.join(COLUMNS)}. [default: all there are]")
    ] = None,
) -> None:
    """Split accuracy by subject, level or fault, from the files that lm_eval --log_samples wrote.

    Prints one Markdown table per column. Exits with 0, with 2 when a file or an option is wrong.
    """
    if by is not None and by not in COLUMNS:
        raise ValueError(f"by={by!r}: expected one of {', '.join(COLUMNS)}")
    read = read_samples(samples)
    columns = [by] if by else [name for name in COLUMNS if any(name in each["doc"] for each in read)]
    if not columns:
        raise ValueError(f"samples: none has one of the columns {', '.join(COLUMNS)}")
    print("\n\n".join(as_markdown(group_by(read, column), column) for column in columns))
