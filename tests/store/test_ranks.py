"""Several processes of one run give the table and the store of one, to the byte."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked_run import run_ranks
from stored_runs import contents, make_tiny

from lm_eval_eglr.harness.plugin import check_runs
from lm_eval_eglr.store import read_store

PROBLEMS = 5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder, PROBLEMS, max_gen_toks=8)
    return folder


@pytest.fixture(scope="module")
def one(tiny: Path) -> tuple[str, dict[str, bytes]]:
    table = run_ranks(tiny, tiny / "one", 1)
    assert table.count("exact_match") > 5
    found = contents(tiny / "one")
    assert len(found) == PROBLEMS
    return table, found


@pytest.mark.parametrize("ranks", [2, 3])
def test_an_odd_number_of_problems(ranks: int, tiny: Path, one: Any) -> None:
    store = tiny / f"ranks{ranks}"
    assert run_ranks(tiny, store, ranks) == one[0]
    assert contents(store) == one[1]
    assert read_store(store).missing == ()


def test_a_process_without_a_problem(tiny: Path) -> None:
    alone = run_ranks(tiny, tiny / "first", 1, limit=1)
    assert run_ranks(tiny, tiny / "shared", 2, limit=1) == alone
    assert contents(tiny / "shared") == contents(tiny / "first")
    assert len(contents(tiny / "shared")) == 1


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_run_of_two_is_resumed_by_another_number(ranks: int, tiny: Path, one: Any) -> None:
    store = tiny / f"resumed{ranks}"
    run_ranks(tiny, store, 2, limit=3)
    before = {path.name: path.stat().st_mtime_ns for path in (store / "pools").glob("*.parquet")}
    assert len(before) == 3
    assert run_ranks(tiny, store, ranks) == one[0]
    assert contents(store) == one[1]
    after = {path.name: path.stat().st_mtime_ns for path in (store / "pools").glob("*.parquet")}
    assert after.items() >= before.items()


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_every_process_refuses_what_lm_eval_would_hang_on(rank: int) -> None:
    module: Any = SimpleNamespace(evaluate=lambda lm, task_dict, limit=None, samples=None: "done")
    check_runs(module)
    stock = SimpleNamespace(config=SimpleNamespace(task="stock"), eval_docs=range(10))
    tasks = {"tasks": {"stock": stock}}
    lm = SimpleNamespace(rank=rank, world_size=4)
    assert module.evaluate(lm, tasks) == "done"
    assert module.evaluate(lm, tasks, limit=4) == "done"
    for options in ({"limit": 3}, {"limit": 0.3}, {"samples": {"stock": [1, 5, 7]}}):
        with pytest.raises(ValueError, match=r"4 processes: stock has 3 documents in this run.*at most 3"):
            module.evaluate(lm, tasks, **options)
