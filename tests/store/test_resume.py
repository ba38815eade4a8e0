"""hf-eglr with ``rollouts=DIR``: a run that is killed and started again ends as if nothing had been."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import pytest
from forked_run import start
from stored_runs import contents, run_tiny

from lm_eval_eglr.store import StoreError, StoreWriter, atomic_files, read_store


@pytest.fixture(scope="module")
def whole(tiny: Path) -> Path:
    run_tiny(tiny, tiny / "whole")
    return tiny / "whole"


def test_killed_and_resumed_equals_uninterrupted(tiny: Path, whole: Path) -> None:
    killed = tiny / "killed"
    run = start(tiny, killed, tiny / "killed.txt", {})
    deadline = time.monotonic() + 120
    while not list((killed / "pools").glob("*.parquet")) and time.monotonic() < deadline:
        assert run.exitcode is None, "the run ended before it could be killed"
        time.sleep(0.005)
    run.kill()
    run.join()
    left = contents(killed)
    assert 0 < len(left) < 4
    assert len(read_store(killed).missing) == 4 - len(left)
    times = {name: (killed / "pools" / name).stat().st_mtime_ns for name in left}
    run_tiny(tiny, killed)
    assert contents(killed) == contents(whole)
    assert times == {name: (killed / "pools" / name).stat().st_mtime_ns for name in left}


def test_a_wider_run_continues_a_narrower_one(tiny: Path, whole: Path) -> None:
    narrow = tiny / "narrow"
    run_tiny(tiny, narrow, limit=1)
    assert len(contents(narrow)) == 1
    run_tiny(tiny, narrow)
    assert contents(narrow) == contents(whole)


def test_another_seed_is_refused(tiny: Path, whole: Path) -> None:
    with pytest.raises(StoreError, match="seed is 0 there and 3 here"):
        run_tiny(tiny, whole, seed=3)


def test_the_store_holds_what_offline_scoring_needs(whole: Path) -> None:
    key = read_store(whole).pools[1].key
    assert (key.reference, key.rules.form, key.fallbacks) == ("2", "number", ("last_number",))
    assert key.fields["problem"] == "What is 1 + 1?"
    assert key.fields["level"] == 1


def test_a_disk_that_fills_up_during_a_run_leaves_a_store_that_resumes(
    tiny: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tiny / "full"
    sync, calls = atomic_files.os.fsync, 0

    def filling(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if len(list((full / "pools").glob("*.parquet"))) >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(atomic_files.os, "fsync", filling)
    with pytest.raises(StoreError, match=r"No space left on device.*the same command continues"):
        run_tiny(tiny, full)
    monkeypatch.undo()
    assert calls > 2
    assert not list((full / "pools").glob(".*"))
    run_tiny(tiny, full)
    assert contents(full) == contents(whole)


def test_an_interrupted_run_says_how_to_go_on(
    tiny: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = tiny / "stopped"
    append = StoreWriter.append

    def interrupted(self: StoreWriter, *arguments: Any) -> None:
        append(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(StoreWriter, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_tiny(tiny, stopped)
    monkeypatch.undo()
    assert "holds 1 pools; the same command continues with the missing ones" in caplog.text
    run_tiny(tiny, stopped)
    assert contents(stopped) == contents(whole)
