"""The store: what is written comes back, what is torn is dropped, what is foreign is refused."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from eglr_selectors import RolloutPool, Telemetry
from filelock import FileLock
from stored_runs import ANSWERS, MANIFEST, small_head, small_pool, write_small

from lm_eval_eglr.store import Manifest, StoreError, StoreWriter, atomic_files, read_store, writer
from lm_eval_eglr.store.folder import PoolPath
from lm_eval_eglr.store.pool_file import encode


def test_pools_come_back_as_they_were(tmp_path: Path) -> None:
    odd = small_pool(["1"] * 6)
    rollouts = list(odd)
    rollouts[0] = replace(rollouts[0], text="\x00\x1b[2J\u2028 =1+1 </script>", telemetry=None, tokens=())
    rollouts[1] = replace(rollouts[1], score=0.1, telemetry=Telemetry(token_confidences=(0.1, 0.2)))
    rollouts[2] = replace(rollouts[2], cell=replace(rollouts[2].cell, temperature=None))
    odd = replace(odd, rollouts=tuple(rollouts), cost=None)
    writer = StoreWriter(tmp_path)
    with writer.writing(MANIFEST):
        writer.append(small_head(0), small_pool(ANSWERS[0]))
        writer.append(small_head(1, reference=None), odd)
    first, second = read_store(tmp_path).pools
    assert (first.key, first.pool) == (small_head(0), small_pool(ANSWERS[0]))
    assert (second.key, second.pool.cost) == (small_head(1, reference=None), None)
    assert [r.text for r in second.pool] == [r.text for r in odd]
    assert second.pool[0] == odd[0]
    assert second.pool[2] == odd[2]
    assert second.pool[1].score == 0.1
    assert second.pool[1].telemetry is not None
    assert second.pool[1].telemetry.token_confidences == (0.1, 0.2)
    assert math.isnan(second.pool[1].telemetry.mean_entropy)


def test_the_same_pool_gives_the_same_bytes() -> None:
    assert encode(small_head(0), small_pool(ANSWERS[0])) == encode(small_head(0), small_pool(ANSWERS[0]))
    with pytest.raises(StoreError, match="without rollouts"):
        encode(small_head(0), RolloutPool(()))


def test_a_reader_knows_what_is_missing_and_a_writer_serves_what_is_there(tmp_path: Path) -> None:
    heads = [small_head(number) for number in range(3)]
    writer = StoreWriter(tmp_path)
    with writer.writing(MANIFEST):
        writer.plan(heads)
        writer.append(heads[1], small_pool(ANSWERS[1], 1))
    assert read_store(tmp_path).missing == (("toy", 0, 0), ("toy", 2, 0))
    again = StoreWriter(tmp_path)
    with again.writing(MANIFEST):
        again.plan(heads)
        assert [again.load(head) for head in heads] == [None, small_pool(ANSWERS[1], 1), None]


def test_a_torn_record_is_dropped_with_a_notice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_small(tmp_path)
    before = read_store(tmp_path)
    _, data = encode(small_head(9), small_pool(ANSWERS[0]))
    torn = tmp_path / "pools" / ".0.part"
    torn.write_bytes(data[:100])
    assert read_store(tmp_path).pools == before.pools
    with StoreWriter(tmp_path).writing(MANIFEST), caplog.at_level(logging.WARNING):
        assert not torn.exists()
    assert "dropped a record that a killed run had not finished" in caplog.text


def test_a_damaged_pool_is_set_aside_and_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_small(tmp_path)
    path = next((tmp_path / "pools").glob("toy.000002*"))
    path.write_bytes(path.read_bytes()[:-1])
    writer = StoreWriter(tmp_path)
    with writer.writing(MANIFEST):
        assert writer.load(small_head(2)) is None
        writer.append(small_head(2), small_pool(ANSWERS[2], 2))
    assert "set aside and decoded again" in caplog.text
    assert len(read_store(tmp_path).pools) == len(ANSWERS)


def test_other_rollouts_are_refused_and_the_difference_named(tmp_path: Path) -> None:
    write_small(tmp_path)
    other = Manifest({**MANIFEST.fingerprint, "seed": 1}, {})
    with (
        pytest.raises(StoreError, match=r"seed is 0 there and 1 here\); name another"),
        StoreWriter(tmp_path).writing(other),
    ):
        pass
    writer = StoreWriter(tmp_path)
    with writer.writing(MANIFEST):
        with pytest.raises(StoreError, match="document 1 of toy is there with another prompt;"):
            writer.plan([small_head(1, document="another:0")])
        with pytest.raises(StoreError, match="another max_gen_toks;"):
            writer.plan([small_head(1, settings={"max_gen_toks": 17})])


def test_two_runs_at_once_are_refused_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    write_small(tmp_path)
    program = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from stored_runs import MANIFEST, StoreWriter\n"
        "with StoreWriter(Path(sys.argv[1])).writing(MANIFEST): print('held', flush=True); time.sleep(60)"
    )
    here = str(Path(__file__).parent)
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), here], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="another run is writing to it"):
            StoreWriter(tmp_path)
        with StoreWriter(tmp_path, rank=1).writing(MANIFEST):  # another process of that run
            pass
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    with StoreWriter(tmp_path).writing(MANIFEST):
        pass


@pytest.mark.parametrize("opened", [False, True])
def test_a_process_waits_for_one_that_drops_what_a_killed_run_left(opened: bool, tmp_path: Path) -> None:
    write_small(tmp_path)
    # The process of rank 1 holds it for a moment, while this one starts.
    dropping = FileLock(tmp_path / ".rank0.lock", thread_local=False)
    writer = StoreWriter(tmp_path) if opened else None
    dropping.acquire()
    timer = threading.Timer(0.3, dropping.release)
    timer.start()
    with (writer or StoreWriter(tmp_path)).writing(MANIFEST):
        assert not dropping.is_locked
    timer.join()


def test_a_process_that_starts_late_finds_what_another_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = StoreWriter(tmp_path, rank=1)
    original = writer.pool_paths

    def looks_while_another_begins(folder: Path) -> Iterator[PoolPath]:
        with monkeypatch.context() as patched:
            patched.setattr(writer, "pool_paths", original)
            write_small(tmp_path)
        return original(folder)

    monkeypatch.setattr(writer, "pool_paths", looks_while_another_begins)
    with late.writing(MANIFEST):
        monkeypatch.undo()
    assert len(read_store(tmp_path).pools) == len(ANSWERS)


def test_shards_of_several_processes_are_one_store(tmp_path: Path) -> None:
    heads = [small_head(number) for number in range(4)]
    for rank in (1, 0):
        writer = StoreWriter(tmp_path, rank)
        with writer.writing(MANIFEST):
            writer.plan(heads[rank::2])
            for number in range(rank, 4, 2):
                writer.append(heads[number], small_pool(ANSWERS[number], number))
    merged = read_store(tmp_path)
    single = read_store(write_small(tmp_path / "single", ANSWERS[:4]))
    assert merged.pools == single.pools
    assert merged.missing == ()


def test_a_full_disk_is_one_line_and_leaves_a_good_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(tmp_path, ANSWERS[:2])
    writer = StoreWriter(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with writer.writing(MANIFEST):
        monkeypatch.setattr(atomic_files.os, "fsync", full)
        with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)") as caught:
            writer.append(small_head(2), small_pool(ANSWERS[2], 2))
        monkeypatch.undo()
        assert "\n" not in str(caught.value)
        assert len(read_store(tmp_path).pools) == 2
        writer.append(small_head(2), small_pool(ANSWERS[2], 2))
    assert len(read_store(tmp_path).pools) == 3


@pytest.mark.skipif(os.name == "nt", reason="folders without permissions")
def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        StoreWriter(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match=r"not a rollout store, it has no manifest\.json"):
        read_store(tmp_path)


def test_one_line_of_pandas_or_datasets_reads_it(tmp_path: Path) -> None:
    import datasets

    write_small(tmp_path)
    frame = pandas.read_parquet(tmp_path / "pools")
    assert len(frame) == 30
    assert set(frame["finish_reason"]) == {"stop", "length"}
    loaded = datasets.load_dataset(
        "parquet", data_files=f"{tmp_path}/pools/*.parquet", split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.num_rows == 30
    assert loaded[0]["reference"] == "1"
