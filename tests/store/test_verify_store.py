"""What lies in a store's folders is looked at, left alone if it is a stranger's, and missed if it is gone."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from stored_runs import ANSWERS, MANIFEST, small_head, small_pool, write_small
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.store import StoreError, StoreWriter, read_store, writer
from lm_eval_eglr.store.vocabulary import read_vocabulary

FORK = multiprocessing.get_context("fork") if os.name != "nt" else None
NEW_THREADS = """
import os, sys
from pathlib import Path
import pyarrow.parquet
from lm_eval_eglr.store.pool_file import decode
from lm_eval_eglr.store.vocabulary import read_vocabulary
threads = len(os.listdir("/proc/self/task"))
folder = Path(sys.argv[1])
print(len([decode(path) for path in (folder / "pools").iterdir()]), len(read_vocabulary(folder)))
print(len(os.listdir("/proc/self/task")) - threads)
"""


def verified(folder: Path, code: int) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["verify-store", str(folder), "--json"])
    assert result.exit_code == code, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two pools, a pool between two rounds, and the text of the tokens."""
    heads = [small_head(number) for number in range(2)]
    with StoreWriter(tmp_path / "store").writing(MANIFEST) as opened:
        opened.plan(heads)
        opened.describe_tokens(lambda: ["a", "b"])
        opened.append_round(heads[0], small_pool(ANSWERS[0]))
        for number, head in enumerate(heads):
            opened.append(head, small_pool(ANSWERS[number], number))
    return tmp_path / "store"


def test_pools_between_rounds_are_looked_at(store: Path) -> None:
    assert verified(store, 0)["rounds"] == 1
    [path] = (store / "rounds").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert [str(path) in problem for problem in verified(store, 1)["problems"]] == [True]
    with StoreWriter(store).writing(MANIFEST) as opened:
        assert opened.load_round(small_head(0)) is None
    report = verified(store, 0)
    assert (report["rounds"], report["set_aside"]) == (0, 1)


def test_a_lost_vocabulary_is_missing_and_made_again(store: Path) -> None:
    assert verified(store, 0)["vocabulary"] == "there"
    next(store.glob("vocabulary.*")).unlink()
    assert verified(store, 3)["vocabulary"] == "missing"
    shown = CliRunner().invoke(app, ["verify-store", str(store)]).output
    assert "incomplete" in shown
    assert "the vocabulary is missing, so pages cannot show tokens" in shown
    with StoreWriter(store).writing(MANIFEST) as opened:
        opened.describe_tokens(lambda: ["a", "b"])
    assert verified(store, 0)["vocabulary"] == "there"


def test_a_store_that_never_had_a_vocabulary_misses_none(tmp_path: Path) -> None:
    assert verified(write_small(tmp_path / "store"), 0)["vocabulary"] == "none"


def test_a_damaged_vocabulary_or_plan_is_set_aside_by_a_run(store: Path) -> None:
    for pattern in ("vocabulary.*", "plan.0.json"):
        path = next(store.glob(pattern))
        path.write_bytes(path.read_bytes()[:-3])
        assert len(verified(store, 1)["problems"]) == 1
        with StoreWriter(store).writing(MANIFEST) as opened:
            opened.plan([small_head(number) for number in range(2)])
            opened.describe_tokens(lambda: ["a", "b"])
        assert verified(store, 0)["missing"] == 0
    assert read_vocabulary(store) == ["a", "b"]
    assert verified(store, 0)["set_aside"] == 2


STRAYS = [
    "Thumbs.db",
    "desktop.ini",
    "notes.txt",
    "copy of {}",
    "{} (1).parquet",
    "{}~",
    "{}.sync-conflict-1.parquet",
]


@pytest.mark.parametrize("name", STRAYS)
def test_a_strangers_file_is_left_alone_and_named(
    name: str, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = min((store / "pools").iterdir())
    stray = store / "pools" / name.format(pool.name.removesuffix(".parquet"))
    shutil.copy(pool, stray)
    with caplog.at_level(logging.WARNING):
        assert len(read_store(store).pools) == 2
    assert f"{stray}: not a file of a rollout store, left alone" in caplog.text
    assert verified(store, 0)["strays"] == [str(stray)]
    caplog.clear()
    with caplog.at_level(logging.WARNING), StoreWriter(store).writing(MANIFEST) as opened:
        assert opened.load(small_head(0)) == small_pool(ANSWERS[0])
        assert len(opened) == 2
    assert "left alone" in caplog.text
    assert stray.exists()


def test_what_could_be_a_pool_is_not_left_alone(store: Path) -> None:
    pool = min((store / "pools").iterdir())
    parts = pool.name.split(".")
    shutil.copy(pool, pool.with_name(".".join([*parts[:3], "0" * 16, *parts[4:]])))
    with pytest.raises(StoreError, match="a second pool for the document of"):
        read_store(store)
    verified(store, 1)


def test_pools_without_a_manifest_are_nobodys(store: Path) -> None:
    """Another model's run would take them for its own."""
    (store / "manifest.json").unlink()
    with pytest.raises(StoreError, match="holds pools but no manifest"), StoreWriter(store).writing(MANIFEST):
        pass
    assert not (store / "manifest.json").exists()


def test_a_removed_store_is_not_called_safe(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), StoreWriter(store).writing(MANIFEST) as opened:
        shutil.rmtree(store)
        with pytest.raises(StoreError) as caught:
            opened.append(small_head(2), small_pool(ANSWERS[2]))
    assert "safe" not in str(caught.value)
    assert "its manifest.json is gone, and perhaps its pools with it" in str(caught.value)
    assert not (store / "pools").exists()
    assert "totals could not be written" in caplog.text


def test_a_totals_lock_that_a_stranger_holds_is_said_while_waiting(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "SILENT_SECONDS", 0.01)
    stranger = FileLock(store / writer.SUMMING)
    said = threading.Event()

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "another process holds .totals.lock; waiting up to 60 s" in record.getMessage():
                said.set()

    def hold() -> None:
        with stranger:
            held.set()
            said.wait(60)

    held = threading.Event()
    handler = Listening()
    writer.logger.addHandler(handler)
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        with StoreWriter(store).writing(MANIFEST) as opened:
            opened.append(small_head(2), small_pool(ANSWERS[2]))
    finally:
        holder.join()
        writer.logger.removeHandler(handler)
    assert said.is_set()
    assert verified(store, 0)["manifest_totals"] == "current"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted under /proc")
def test_reading_a_store_starts_no_thread(store: Path) -> None:
    """One that was still there when the interpreter ended would end it with SIGABRT."""
    done = subprocess.run(
        [sys.executable, "-c", NEW_THREADS, str(store)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "2", "0"]


@pytest.mark.skipif(
    not hasattr(os, "setuid") or os.geteuid() != 0, reason="only root can become another user"
)
@pytest.mark.parametrize("revoked", ["writing", "reading"])
def test_permissions_that_are_revoked_as_another_user(revoked: str, tmp_path: Path) -> None:
    """A run of an unprivileged user whose store is taken away from it in the middle."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and len(folder.parts) > 2:
            folder.chmod(folder.stat().st_mode | 0o055)
    tmp_path.chmod(0o777)
    assert FORK is not None
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_as_nobody, args=(tmp_path / "store", theirs))
    process.start()
    assert ours.recv() == "one written"
    pools = tmp_path / "store" / "pools"
    os.chown(pools, 0, 0)
    pools.chmod(0o555 if revoked == "writing" else 0o700)
    ours.send("go on")
    said = ours.recv()
    process.join()
    assert f"cannot be {'written' if revoked == 'writing' else 'read'} (Permission denied)" in said[0]
    assert "\n" not in said[0]
    assert said[1] == (1 if revoked == "writing" else said[0])
    os.chown(pools, 65534, 65534)
    pools.chmod(0o755)
    assert len(read_store(tmp_path / "store").pools) == 1


def _as_nobody(folder: Path, pipe: Any) -> None:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    found: list[Any] = []
    try:
        with StoreWriter(folder).writing(MANIFEST) as opened:
            opened.append(small_head(0), small_pool(ANSWERS[0]))
            pipe.send("one written")
            pipe.recv()
            if os.access(folder / "pools", os.R_OK):
                opened.append(small_head(1), small_pool(ANSWERS[1]))
            else:
                read_store(folder)
    except StoreError as error:
        found.append(str(error))
    try:
        found.append(len(read_store(folder).pools))
    except StoreError as error:
        found.append(str(error))
    pipe.send(found)
    os._exit(0)
