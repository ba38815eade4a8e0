"""Threads, batches and the number of documents decide how a run goes, and none of its tokens."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from stored_runs import make_tiny, run_tiny

from lm_eval_eglr.store import read_store

PROBLEMS = 6
Rollouts = dict[str, list[tuple[str, tuple[int, ...], bool]]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder, PROBLEMS, max_gen_toks=16)
    return folder


def decoded(tiny: Path, store: Path, **options: Any) -> Rollouts:
    """By prompt: cell, tokens, and whether rounding decided one of them, of each rollout."""
    threads = torch.get_num_threads()
    try:
        run_tiny(tiny, store, **options)
    finally:
        torch.set_num_threads(threads)
    return {
        each.pool.prompt: [
            (str(rollout.cell), rollout.tokens, bool(rollout.telemetry and rollout.telemetry.ties))
            for rollout in each.pool
        ]
        for each in read_store(store).pools
    }


@pytest.fixture(scope="module")
def expected(tiny: Path) -> Rollouts:
    found = decoded(tiny, tiny / "expected")
    assert len(found) == PROBLEMS
    return found


def assert_same(found: Rollouts, expected: Rollouts) -> None:
    """The same tokens, but where rounding decides one; that is rare here."""
    compared = 0
    for prompt, rollouts in found.items():
        for one, other in zip(rollouts, expected[prompt], strict=True):
            assert one[0] == other[0]
            if not one[2] and not other[2]:
                assert one[1] == other[1]
                compared += 1
    assert compared > 0.9 * sum(map(len, found.values()))


@pytest.mark.parametrize(
    "options",
    [{"threads": 2}, {"limit": 2}, {"limit": 5}, {"batch_size": 64}, {"trace": True}],
    ids=str,
)
def test_how_a_run_goes_decides_no_token(
    options: dict[str, Any], tiny: Path, expected: Rollouts, tmp_path: Path
) -> None:
    found = decoded(tiny, tmp_path / "store", **options)
    assert len(found) == options.get("limit", PROBLEMS)
    assert_same(found, expected)


def test_the_order_of_the_documents_decides_no_greedy_token(
    tiny: Path, expected: Rollouts, tmp_path: Path
) -> None:
    """lm_eval numbers documents by their place in the file; the number is a part of the key of the draws."""
    for part in ("model", "tasks"):
        shutil.copytree(tiny / part, tmp_path / part)
    lines = (tmp_path / "tasks" / "toy.jsonl").read_text().splitlines()
    random.Random(0).shuffle(lines)
    (tmp_path / "tasks" / "toy.jsonl").write_text("\n".join(lines) + "\n")
    found = decoded(tmp_path, tmp_path / "store")
    assert list(found) != list(expected)
    assert found.keys() == expected.keys()
    assert found != expected
    greedy = [
        {prompt: [one for one in pool if "/T0#" in one[0]] for prompt, pool in each.items()}
        for each in (found, expected)
    ]
    assert_same(*greedy)
