"""Fixtures of the documentation's tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from eglr_selectors import registry
from eglr_selectors.verifiers import registry as verifier_registry

sys.path.insert(0, str(Path(__file__).parent))

from command_server import write_stubs
from page_session import environment_of

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A reader's environment, in which our commands are served by one process that has its imports."""
    folder = tmp_path_factory.mktemp("bin")
    scripts = folder / "scripts"
    scripts.mkdir()
    path = folder / "socket"
    write_stubs(scripts, path)
    environment = environment_of(scripts)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("command_server.py")), str(path)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        while not path.exists() and server.poll() is None:
            time.sleep(0.1)
        assert server.poll() is None, (folder / "log").read_text()
        yield environment
        server.kill()
        server.wait()


@pytest.fixture
def own_registrations() -> Iterator[None]:
    """What a page registers is gone after it: other tests list what the library brings."""
    tables = [registry._REGISTRY._entries, verifier_registry._REGISTRY._entries]
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)
