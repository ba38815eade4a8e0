"""An import reads, holds and writes each pool once, however many there are."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from eglr_selectors import RolloutPool, Telemetry
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.importing import Source, open_rollouts, read_rollouts, write_store
from lm_eval_eglr.importing.writing import SYNCED_TOGETHER
from lm_eval_eglr.store import PoolKey, StoreError, StoreWriter, read_store, writer
from lm_eval_eglr.store import totals as sums
from lm_eval_eglr.store.pool_file import encode
from lm_eval_eglr.store.pool_schema import WITHOUT_COST, WITHOUT_TELEMETRY

LONG = "so we add the numbers again " * 100


def source_of(path: Path, count: int) -> Source:
    lines = [
        {"prompt": f"{i} + 1?", "texts": [LONG, f"\\boxed{{{i + 1}}}"], "reference": str(i + 1)}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return open_rollouts([path])


def as_responses(path: Path) -> None:
    """The same problems as a server answers them, the second texts after all first ones."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    with path.open("w") as file:
        for place in (0, 1):
            for line in lines:
                choice = {"message": {"content": line["texts"][place]}, "finish_reason": "stop"}
                record = {"request": {"prompt": line["prompt"]}, "response": {"choices": [choice]}}
                file.write(json.dumps(record) + "\n")


def peak_of(folder: Path, count: int, form: str) -> int:
    """Most bytes of Python's that reading and writing so many pools takes at one time."""
    folder.mkdir()
    source_of(folder / "pools.jsonl", count)
    if form == "openai":
        as_responses(folder / "pools.jsonl")
    tracemalloc.start()
    write_store(folder / "store", open_rollouts([folder / "pools.jsonl"]), form)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("form", ["texts", "openai"])
def test_memory_holds_one_pool_at_a_time(tmp_path: Path, form: str) -> None:
    peak_of(tmp_path / "first", 10, form)  # what is imported and cached at first use
    few, many = peak_of(tmp_path / "few", 50, form), peak_of(tmp_path / "many", 350, form)
    # What stays of a pool is its name and its place, less than half of the first of its texts.
    assert (many - few) / 300 < len(LONG)


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is done for pools from now on."""
    calls: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        original = getattr(module, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, counting)

    for name in ("encode", "decode", "sync_folder", "write_atomically"):
        count(writer, name)
    count(sums, "decode_cost")
    return calls


def test_a_pool_is_encoded_once_and_never_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 2 * SYNCED_TOGETHER
    source = source_of(tmp_path / "pools.jsonl", count)
    calls = counted(monkeypatch)
    assert write_store(tmp_path / "store", source, "texts") == count
    assert calls == {"encode": count, "write_atomically": count, "sync_folder": 2}
    calls.clear()
    assert write_store(tmp_path / "store", source, "texts") == 0
    assert calls == {"encode": count}
    totals = read_store(tmp_path / "store").manifest.totals
    assert totals is not None
    assert (totals.pools, totals.rollouts) == (count, 2 * count)


def test_a_stopped_import_goes_on_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(tmp_path / "pools.jsonl", 8)
    write_store(tmp_path / "whole", source, "texts")
    original = writer.write_atomically
    written = 0

    def stops(*arguments: Any, **options: Any) -> None:
        nonlocal written
        written += 1
        if written > 5:
            raise OSError(28, "No space left on device")
        original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write_atomically", stops)
        with pytest.raises(StoreError, match="No space left"):
            write_store(tmp_path / "stopped", source, "texts")
    assert len(list((tmp_path / "stopped" / "pools").iterdir())) == 5
    assert write_store(tmp_path / "stopped", source, "texts") == 3

    def content(store: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (store / "pools").iterdir()}

    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_a_damaged_pool_is_made_again_and_another_one_is_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path / "pools.jsonl", 3)
    store = tmp_path / "store"
    write_store(store, source, "texts")
    damaged = min((store / "pools").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert write_store(store, source, "texts") == 1
    assert CliRunner().invoke(app, ["verify-store", str(store)]).exit_code == 0
    text = (tmp_path / "pools.jsonl").read_text()
    (tmp_path / "pools.jsonl").write_text(text.replace("so we add", "and we add"))
    with pytest.raises(StoreError, match="document 0 of pools is there with other rollouts"):
        write_store(store, open_rollouts([tmp_path / "pools.jsonl"]), "texts")


def test_a_store_that_an_earlier_version_wrote_goes_on(tmp_path: Path) -> None:
    source = source_of(tmp_path / "pools.jsonl", 4)
    earlier = StoreWriter(tmp_path / "store")  # with every column, as all stores were
    stored = read_rollouts([tmp_path / "pools.jsonl"]).pools
    write_store(tmp_path / "new", source, "texts")
    with earlier.writing(read_store(tmp_path / "new").manifest):
        earlier.append_all((each.key, each.pool) for each in stored[:2])
    assert write_store(tmp_path / "store", source, "texts") == 2
    texts = [
        [[r.text for r in each.pool] for each in read_store(tmp_path / n).pools] for n in ("new", "store")
    ]
    assert texts[0] == texts[1]


def test_what_is_known_of_no_rollout_has_no_column_and_what_is_known_is_never_left_out(
    tmp_path: Path,
) -> None:
    write_store(tmp_path / "store", source_of(tmp_path / "pools.jsonl", 1), "texts")
    [path] = (tmp_path / "store" / "pools").iterdir()
    names = set(pq.read_schema(path).names)
    assert not names & (WITHOUT_TELEMETRY | WITHOUT_COST)
    assert {"text", "score", "temperature", "tokens"} <= names
    pool = RolloutPool.from_texts(["1"])
    [rollout] = pool
    told = RolloutPool((type(rollout)(rollout.text, rollout.cell, telemetry=Telemetry(mean_logprob=-1.0)),))
    key = PoolKey("sums", 0)
    encode(key, pool, WITHOUT_TELEMETRY)
    with pytest.raises(StoreError, match=r"its store has no columns for .*mean_logprob"):
        encode(key, told, WITHOUT_TELEMETRY)
