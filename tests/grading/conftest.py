"""Where the larger case files are: beside the checkout, if anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from eglr_selectors.grading import undecided


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data: EGLR_SHARED_DIR, or ``../shared`` beside the checkout."""
    default = Path(__file__).parents[3] / "shared"
    folder = Path(os.environ.get("EGLR_SHARED_DIR", default))
    if not (folder / "grading" / "pairs.jsonl").is_file():
        pytest.skip(f"no shared grading data: {folder} (set EGLR_SHARED_DIR)")
    return folder


@pytest.fixture(autouse=True)
def nothing_undecided() -> None:
    """No test leaves another one a pair that is not tried again."""
    undecided.clear()
