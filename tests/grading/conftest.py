"""Where the case files are: those shipped with the tests, and larger ones beside the checkout."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

CASES = Path(__file__).parent / "cases"


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data: EGLR_SHARED_DIR, or ``../shared`` beside the checkout."""
    default = Path(__file__).parents[3] / "shared"
    folder = Path(os.environ.get("EGLR_SHARED_DIR", default))
    if not (folder / "grading" / "pairs.jsonl").is_file():
        pytest.skip(f"no shared grading data: {folder} (set EGLR_SHARED_DIR)")
    return folder
