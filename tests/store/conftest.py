"""Fixtures of the store's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored_runs import make_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and its task, for one file of tests."""
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder)
    return folder
