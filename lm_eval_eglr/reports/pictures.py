"""The page's figures as files for papers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lm_eval_eglr.reports.page import Run

WIDTH, HEIGHT, SCALE = 720, 440, 2


def write_pictures(runs: Sequence[Run], folder: Path, kind: str) -> Iterator[Path]:
    """Writes every figure, on white, and yields the files.

    Args:
        runs: What the page shows.
        folder: Made if it is not there.
        kind: ``svg`` or ``png``.

    Raises:
        ValueError: If kaleido, or the browser that it draws with, is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        stem = re.sub(r"[^A-Za-z0-9]+", "-", run.title).strip("-")
        for name, figure in run.plots.items():
            path = folder / f"{stem}-{name}.{kind}"
            drawn = figure.__class__(figure)
            drawn.update_layout(paper_bgcolor="white", plot_bgcolor="white", font={"color": "#222"})
            try:
                drawn.write_image(path, width=WIDTH, height=HEIGHT, scale=SCALE)
            except (ValueError, RuntimeError, ImportError) as error:
                reason = str(error).strip().splitlines()[0]
                raise ValueError(
                    f"--figures: cannot draw ({reason}); it needs kaleido and Chromium or Chrome"
                ) from None
            yield path
