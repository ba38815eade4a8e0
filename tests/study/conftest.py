"""Fixtures of the tests of studies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from study_stores import write_study


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a store into the test's folder, by its name."""
    return lambda name, *given: write_study(tmp_path / name, *given)


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """A grid and plain rollouts of forty problems."""
    rng = np.random.default_rng(1)
    hard = rng.random((40, 1))
    grid = write_study(tmp_path / "grid", rng.random((40, 9)) > hard)
    plain = write_study(tmp_path / "plain", rng.random((40, 9)) > hard, (0,), (0.0, *[0.7] * 8))
    return grid, plain
