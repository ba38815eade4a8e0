"""Pools of recurrences in stores: written, read, exported, and told from those of spans."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from eglr_selectors import RolloutPool
from stored_runs import ANSWERS, MANIFEST, contents, small_head, small_pool, write_small
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.store import Manifest, StoreError, StoreWriter, read_store
from lm_eval_eglr.store.atomic_files import digest, with_checksum

RECURRENT = Manifest({**MANIFEST.fingerprint, "axis": "R"}, MANIFEST.versions)


def recurrent_pool(number: int) -> RolloutPool:
    """The small pool with 1 and 3 recurrences in place of spans 0 and 2."""
    pool = small_pool(ANSWERS[number], number)
    cells = [replace(rollout.cell, span=rollout.cell.span + 1, axis="R") for rollout in pool]
    rollouts = tuple(replace(rollout, cell=cell) for rollout, cell in zip(pool, cells, strict=True))
    return replace(pool, rollouts=rollouts)


def write_recurrent(folder: Path) -> Path:
    writer = StoreWriter(folder)
    with writer.writing(RECURRENT):
        writer.plan([small_head(number) for number in range(len(ANSWERS))])
        for number in range(len(ANSWERS)):
            writer.append(small_head(number), recurrent_pool(number))
    return folder


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_written_and_read_a_pool_is_the_same(tmp_path: Path) -> None:
    folder = write_recurrent(tmp_path / "store")
    store = read_store(folder)
    assert [stored.pool for stored in store.pools] == [recurrent_pool(n) for n in range(len(ANSWERS))]
    assert [str(rollout.cell) for rollout in store.pools[0].pool][::3] == ["R1/T0#0", "R3/T0#0"]
    assert store.pools[0].pool[3, 0.7, 1].cell.axis == "R"
    frame = store.to_pandas()
    assert set(zip(frame["axis"], frame["span"], strict=True)) == {("R", 1), ("R", 3)}
    assert "whole" in run("verify-store", folder)


def test_a_store_of_spans_is_written_as_it_always_was(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "store")
    for data in (folder / "pools").iterdir():
        assert "axis" not in pq.read_schema(data).names
    assert json.loads((folder / "manifest.json").read_text())["version"] == 1
    assert "axis" not in (folder / "manifest.json").read_text()
    assert {rollout.cell.axis for stored in read_store(folder).pools for rollout in stored.pool} == {"L"}


def test_readers_that_know_no_axis_refuse_a_store_of_recurrences(tmp_path: Path) -> None:
    manifest = write_recurrent(tmp_path / "store") / "manifest.json"
    content = json.loads(manifest.read_text())
    assert content["version"] == 2, "they take version 1 only, and name what they find"
    del content["checksum"]
    manifest.write_bytes(with_checksum({**content, "version": 1}))
    with pytest.raises(StoreError, match="axis='R' in version 1: expected R in version 2"):
        read_store(tmp_path / "store")


def test_each_axis_has_stores_of_its_own(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store")
    with writer.writing(RECURRENT), pytest.raises(StoreError, match="axis L in a store of axis R"):
        writer.append(small_head(0), small_pool(ANSWERS[0]))
    spans = write_small(tmp_path / "spans")
    with (
        pytest.raises(StoreError, match='axis is null there and "R" here'),
        StoreWriter(spans).writing(RECURRENT),
    ):
        pass
    for path in (spans / "pools").iterdir():
        path.unlink()
    for name, data in contents(write_recurrent(tmp_path / "other")).items():
        (spans / "pools" / name).write_bytes(data)
    assert "a pool on depth axis R in a store of axis L" in run("verify-store", spans, code=1)


@pytest.mark.parametrize("odd", [["L"], ["R", "L"], ["X"], ["R", ""]], ids=str)
def test_a_file_whose_axis_is_not_r_throughout_is_refused(odd: list[str], tmp_path: Path) -> None:
    """Pools of spans have no such column, so that it can say nothing else."""
    pools = write_recurrent(tmp_path / "store") / "pools"
    path = sorted(pools.iterdir())[0]
    table = pq.read_table(path)
    column = pa.array(odd * (table.num_rows // len(odd)), table.schema.field("axis").type)
    buffer = io.BytesIO()
    pq.write_table(table.set_column(table.column_names.index("axis"), "axis", column), buffer)
    path.unlink()
    stem = ".".join(path.name.split(".")[:4])
    (pools / f"{stem}.{digest(buffer.getvalue())}.parquet").write_bytes(buffer.getvalue())
    said = run("verify-store", tmp_path / "store", code=1)
    assert "expected R in all rows, or no such column" in said


def test_a_pool_with_both_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="a pool or a grid has one axis"):
        RolloutPool.join([recurrent_pool(0), small_pool(ANSWERS[0])])


def test_exports_say_the_axis_and_are_imported_again(tmp_path: Path) -> None:
    store = write_recurrent(tmp_path / "store")
    run("export", store, "--format", "jsonl")
    run("export", store, "--format", "parquet")
    assert set(pandas.read_parquet(tmp_path / "store.parquet")["axis"]) == {"R"}
    run("import", tmp_path / "store.jsonl", "-o", tmp_path / "again")
    again = read_store(tmp_path / "again")
    assert again.manifest.axis == "R"
    assert again.pools == read_store(store).pools
    run("import", tmp_path / "store.jsonl", "-o", tmp_path / "again")  # goes on where it was: nothing to do
