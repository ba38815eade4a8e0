"""The page's figures as files for papers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from plotly.io import write_images

from lm_eval_eglr.reports.page import Run

WIDTH, HEIGHT, SCALE = 720, 440, 2


def write_pictures(runs: Sequence[Run], folder: Path, kind: str) -> list[Path]:
    """Writes every figure, on white, and returns the files.

    Args:
        runs: What the page shows.
        folder: Made if it is not there.
        kind: ``svg`` or ``png``.

    Raises:
        ValueError: If kaleido, or the browser that it draws with, is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for run in runs:
        stem = re.sub(r"[^A-Za-z0-9]+", "-", run.title).strip("-")
        for name, figure in run.plots.items():
            drawn = figure.__class__(figure)
            drawn.update_layout(paper_bgcolor="white", plot_bgcolor="white", font={"color": "#222"})
            pictures[folder / f"{stem}-{name}.{kind}"] = drawn
    try:
        write_images(list(pictures.values()), list(pictures), width=WIDTH, height=HEIGHT, scale=SCALE)
    except (ValueError, RuntimeError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"--figures: cannot draw ({reason}); it needs Chromium or Chrome, and "
            "pip install 'lm-eval-eglr[figures]'"
        ) from None
    return list(pictures)
