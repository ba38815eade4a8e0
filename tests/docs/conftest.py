"""Fixtures of the documentation's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from command_server import served
from page_session import environment_of


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A reader's environment, in which our commands are served by one process that has its imports."""
    with served(tmp_path_factory.mktemp("bin")) as scripts:
        yield environment_of(scripts)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all pages: the pool that many of them begin with is decoded once, then served."""
    return tmp_path_factory.mktemp("workspace")
