"""Pools of other strategies in a store: kept, read back, gone on with in the middle of a second round."""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from eglr_selectors import Cell, Rollout, RolloutPool, default_selectors, rollout_from_record
from stored_runs import MANIFEST, contents, run_tiny, small_head, small_pool

from lm_eval_eglr.decoding.scheduler import Scheduler
from lm_eval_eglr.reports.leaderboard import leaderboard
from lm_eval_eglr.reports.page import run_of
from lm_eval_eglr.reports.selector_rows import strategy_row
from lm_eval_eglr.store import StoreError, StoreWriter, read_store
from lm_eval_eglr.store.atomic_files import digest
from lm_eval_eglr.store.pool_file import decode, encode

PLAIN: dict[str, Any] = {"spans": None, "temperatures": None, "entropy_threshold": None}
EAGER = {**PLAIN, "strategy": "eager", "n": 3, "branch_threshold": 2.7, "min_branch_distance": 4}
STRATEGIES = {
    "sample": {**PLAIN, "strategy": "sample", "n": 3, "temperature": 1},
    "eager": EAGER,
    "labels": {**EAGER, "budget": "labels"},
    "adaptive_grid": {"strategy": "adaptive_grid", "n": 3, "wave": 2},
}


def run(tiny: Path, store: Path, options: dict[str, Any], **more: Any) -> dict[str, Any]:
    return run_tiny(tiny, store, **{**options, **more})


Whole = tuple[str, Path, dict[str, Any]]


@pytest.fixture(scope="module")
def wholes(tiny: Path) -> Callable[[str], Whole]:
    """Runs a strategy through lm_eval, once: its name, its store, its table."""

    @functools.cache
    def once(name: str) -> Whole:
        return name, tiny / name, run(tiny, tiny / name, STRATEGIES[name])["results"]["toy_eglr"]

    return once


@pytest.fixture(params=STRATEGIES)
def whole(request: pytest.FixtureRequest, wholes: Callable[[str], Whole]) -> Whole:
    return wholes(request.param)


def test_the_table_and_the_store_say_what_was_run(whole: Whole) -> None:
    name, folder, table = whole
    store = read_store(folder)
    rows = [key for key in table if key.startswith("exact_match,")]
    marked = [row for row in rows if row.endswith("(uses reference)")]
    # Whatever a selector looks at, pools that the labels decided are no fair ones.
    assert (len(marked) == len(rows)) == (name == "labels")
    assert "exact_match,majority (uses reference)" in marked or name != "labels"
    strategy = store.manifest.fingerprint["strategy"]
    assert strategy["name"] == ("eager" if name == "labels" else name)
    assert ("uses reference" in strategy.get("budget", "")) == (name == "labels")
    assert all(stored.pool.uses_reference == (name == "labels") for stored in store.pools)
    assert sum(len(stored.pool) for stored in store.pools) <= 3 * 4
    branches = [rollout.cell.path for stored in store.pools for rollout in stored.pool if rollout.cell.path]
    assert bool(branches) == (name in ("eager", "labels"))


def test_a_finished_run_is_served(tiny: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    name, folder, table = whole
    before = contents(folder)
    monkeypatch.setattr("lm_eval_eglr.decoding.engine.Engine.step", None)  # nothing may be decoded
    again = run(tiny, folder, STRATEGIES[name])["results"]["toy_eglr"]
    assert contents(folder) == before
    assert {k: v for k, v in again.items() if not _nan(v)} == {k: v for k, v in table.items() if not _nan(v)}


@pytest.mark.parametrize(
    ("name", "finished"),
    [("eager", 3), ("adaptive_grid", 1), pytest.param("labels", 2, marks=pytest.mark.slow)],
)
def test_a_run_stopped_in_its_second_round_goes_on(
    name: str,
    finished: int,
    tiny: Path,
    wholes: Callable[[str], Whole],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, complete, _ = wholes(name)
    stopped = tmp_path / "stopped"
    append, kept = StoreWriter.append, []

    def interrupted(self: StoreWriter, *arguments: Any) -> None:
        append(self, *arguments)
        if len(contents(stopped)) == finished:
            raise KeyboardInterrupt

    monkeypatch.setattr(StoreWriter, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, stopped, STRATEGIES[name])
    monkeypatch.undo()
    assert len(contents(stopped)) == finished
    write = StoreWriter.append_round
    monkeypatch.setattr(
        StoreWriter,
        "append_round",
        lambda self, head, pool: (kept.append(head.doc_id), write(self, head, pool)),
    )
    before = {path.name for path in (stopped / "rounds").glob("[!.]*")}
    run(tiny, stopped, STRATEGIES[name])
    assert contents(stopped) == contents(complete)
    first_round_over = {int(name.split(".")[1]) for name in before}
    assert not first_round_over & set(kept), "a first round was decoded twice"


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_batch_of_one_pool_is_one_prompts(
    name: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a later request asks for a part of the pool, beside which another prompt's would fit."""
    admit, together = Scheduler.admit, []

    def counted(self: Scheduler, tree: Any) -> Any:
        found = admit(self, tree)
        together.append(len({job.request.document for job in tree.jobs if job}))
        return found

    monkeypatch.setattr(Scheduler, "admit", counted)
    run(tiny, tmp_path / "store", STRATEGIES[name])
    assert max(together) == 1
    run(tiny, tmp_path / "larger", STRATEGIES[name], batch_size=64)
    assert max(together) > 1


@pytest.mark.parametrize("name", ["eager", "labels", "adaptive_grid"])
def test_what_is_decoded_again_does_not_depend_on_its_neighbours(
    name: str, tiny: Path, wholes: Callable[[str], Whole], tmp_path: Path
) -> None:
    """Each pool alone is lost and decoded again from its first round, which other prompts shared with it."""
    _, complete, _ = wholes(name)
    for number, path in enumerate(sorted((complete / "pools").glob("*.parquet"))):
        again = tmp_path / f"again{number}"
        shutil.copytree(complete, again)
        (again / "pools" / path.name).unlink()
        run(tiny, again, STRATEGIES[name])
        assert contents(again) == contents(complete), path.name


def test_a_wider_run_would_share_another_budget(tiny: Path, tmp_path: Path) -> None:
    run(tiny, tmp_path / "store", EAGER, limit=2)
    with pytest.raises(StoreError, match="is there with another documents sharing the budget"):
        run(tiny, tmp_path / "store", EAGER)
    run(tiny, tmp_path / "alone", EAGER, limit=2, budget="none")
    run(tiny, tmp_path / "alone", EAGER, budget="none")
    assert len(contents(tmp_path / "alone")) == 4


def test_another_strategy_is_another_run(tiny: Path, tmp_path: Path) -> None:
    run(tiny, tmp_path / "store", EAGER, limit=1)
    with pytest.raises(StoreError, match=r"strategy is .*2.7.* there and .*2.8.* here"):
        run(tiny, tmp_path / "store", EAGER, limit=1, branch_threshold=2.8)


def test_a_branch_survives_the_store_and_the_export() -> None:
    path = ((3, 1), (12, 2))
    rollout = Rollout("text", Cell(0, 0.0, 2, path), "stop", (1, 2))
    assert str(rollout.cell) == "L0/T0#2@3.1/12.2"
    assert Cell.path_of(rollout.cell.branch) == path
    [record] = RolloutPool((rollout,)).to_records()
    record["cell"]["path"] = [list(fork) for fork in record["cell"]["path"]]  # as JSON has it
    assert rollout_from_record(record) == rollout
    [plain] = RolloutPool((Rollout("text"),)).to_records()
    assert set(plain["cell"]) == {"span", "temperature", "sample"}


def test_a_pool_of_an_older_version_is_read(tmp_path: Path) -> None:
    pool = small_pool(["1", None, "2", "1", "3", "4"])
    name, data = encode(small_head(0), pool)
    (tmp_path / name).write_bytes(data)
    new = {"path", "uses_reference", "token_self_certainties", "token_branch_entropies", "token_ties"}
    new |= {"changed_tokens", "token_changes"}
    table = pq.read_table(tmp_path / name)
    old = tmp_path / "old.parquet"
    pq.write_table(table.drop_columns(sorted(new)), old)
    renamed = tmp_path / f"{small_head(0).stem}.{digest(old.read_bytes())}.parquet"
    old.rename(renamed)
    (key, read), (new_key, new) = decode(renamed), decode(tmp_path / name)
    assert key == new_key
    # Undefined figures are NaN, which equals nothing.
    assert repr((read.to_records(), read.cost)) == repr((new.to_records(), new.cost))


def _nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def test_tables_and_page_mark_pools_that_labels_decided(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path)
    rollouts = [
        Rollout(rf"so \boxed{{{answer}}}", Cell(0, 0.0, i, ((2, i),) if i else ()), "stop", (1, 2, 3))
        for i, answer in enumerate("112")
    ]
    with writer.writing(MANIFEST):
        for number in range(3):
            writer.append(small_head(number), RolloutPool(tuple(rollouts), "p", None, uses_reference=True))
    store = read_store(tmp_path)
    documents = store.documents("toy")
    for name in default_selectors():
        assert strategy_row("m", "toy", documents, name).uses_reference
    assert leaderboard([strategy_row("m", "toy", documents, "majority")]).best("toy") is None
    axes = [strategy_row("m", "toy", documents, name) for name in ("temperature_oracle", "layer_oracle")]
    assert [row.value for row in axes] == [1.0, 1.0]
    shown = run_of(store, "toy", documents, ["majority", "oracle"])
    assert any("uses the reference" in note for note in shown.notes)
    assert "majority†" in {cell.text for row in shown.table.rows for cell in row}
