"""Fixtures of the documentation's tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from eglr_selectors import available_selectors, registry
from eglr_selectors.verifiers import available_verifiers
from eglr_selectors.verifiers import registry as verifier_registry

sys.path.insert(0, str(Path(__file__).parent))

from command_server import served
from page_session import environment_of

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A reader's environment, in which our commands are served by one process that has its imports."""
    with served(tmp_path_factory.mktemp("bin")) as scripts:
        yield environment_of(scripts)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all pages: the pool that many of them begin with is decoded once, then served."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture
def own_registrations() -> Iterator[None]:
    """What a page registers is gone after it: other tests list what the library brings."""
    available_selectors(), available_verifiers()  # the library's own are there for good
    tables = [registry._REGISTRY._entries, verifier_registry._REGISTRY._entries]
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)
