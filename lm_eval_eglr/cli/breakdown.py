"""``eglr breakdown``: accuracy per subject, level or kind of fault, from logged samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lm_eval_eglr.importing.lm_eval_output import samples_of
from lm_eval_eglr.reports.breakdown import COLUMNS, as_markdown, read_samples
from lm_eval_eglr.reports.breakdown import breakdown as group_by
from lm_eval_eglr.store.manifest import NAME as MANIFEST


def breakdown(
    samples: Annotated[
        list[Path],
        typer.Argument(
            metavar="SAMPLES...",
            help="samples_*.jsonl files of one task, of one run, or lm_eval's output folder with them.",
        ),
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
    read = read_samples([file for path in samples for file in _files_in(path)])
    columns = [by] if by else [name for name in COLUMNS if any(name in each["doc"] for each in read)]
    if not columns:
        raise ValueError(f"samples: none has one of the columns {', '.join(COLUMNS)}")
    print("\n\n".join(as_markdown(group_by(read, column), column) for column in columns))


def _files_in(path: Path) -> list[Path]:
    """The file of samples that was named, or the newest one in lm_eval's output folder."""
    if (path / MANIFEST).is_file():
        raise ValueError(
            f"{path}: a rollout store; name the samples_*.jsonl that lm_eval --log_samples wrote"
        )
    if not path.is_dir():
        return [path]
    files = samples_of(path).samples
    if len(files) > 1:
        raise ValueError(f"{path}: samples of several tasks ({', '.join(files)}); name the file of one")
    return list(files.values())
