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


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A grid and plain rollouts of forty problems."""
    folder = tmp_path_factory.mktemp("both")
    rng = np.random.default_rng(1)
    hard = rng.random((40, 1))
    grid = write_study(folder / "grid", rng.random((40, 9)) > hard)
    plain = write_study(folder / "plain", rng.random((40, 9)) > hard, (0,), (0.0, *[0.7] * 8))
    return grid, plain
