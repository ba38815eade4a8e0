"""Faults during a run: what was written stays, the same command ends as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked_run import start
from stored_runs import contents, make_tiny, run_tiny

from lm_eval_eglr.store import read_store

PROBLEMS = 6
MOUNTED = """
import subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from stored_runs import ANSWERS, MANIFEST, small_head, small_pool
from lm_eval_eglr.store import StoreError, StoreWriter, read_store

folder = Path(sys.argv[1]) / "store"
writer, count = StoreWriter(folder), 0
with writer.writing(MANIFEST):
    try:
        while count < 10_000:
            writer.append(small_head(count), small_pool(ANSWERS[0]))
            count += 1
    except StoreError as error:
        print(error)
print(count == len(read_store(folder).pools) > 0)
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
try:
    StoreWriter(folder)
except StoreError as error:
    print(error)
print(count == len(read_store(folder).pools))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder, PROBLEMS, max_gen_toks=8)
    return folder


@pytest.fixture(scope="module")
def whole(tiny: Path) -> tuple[dict[str, bytes], float]:
    """The pools of a run that nothing disturbed, and its seconds."""
    begun = time.monotonic()
    process = start(tiny, tiny / "whole", tiny / "whole.txt", {})
    process.join()
    assert process.exitcode == 0
    return contents(tiny / "whole"), time.monotonic() - begun


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments(kills: int, tiny: Path, whole: tuple[dict[str, bytes], float]) -> None:
    """Each run is killed at any moment of its life, and the next one continues, until the store is whole."""
    expected, seconds = whole
    rng = random.Random(kills)
    number, before, unfinished = 0, {}, 0
    for _ in range(kills):
        store = tiny / f"killed{kills}.{number}"
        process = start(tiny, store, tiny / "killed.txt", {})
        time.sleep(rng.uniform(0.05, 1) * seconds)
        process.kill()
        process.join()
        left = contents(store) if store.is_dir() else {}
        assert before.items() <= left.items() <= expected.items()
        if (store / "manifest.json").is_file():
            found = read_store(store)
            assert len(found.pools) == len(left)
            unfinished += bool(found.missing)
        before = left
        if left == expected:
            number, before = number + 1, {}
    assert unfinished or kills < 10
    run_tiny(tiny, store)
    assert contents(store) == expected
    assert read_store(store).missing == ()


def test_an_interrupt_says_what_is_safe_and_how_to_go_on(
    tiny: Path, whole: tuple[dict[str, bytes], float]
) -> None:
    store, output = tiny / "interrupted", tiny / "interrupted.txt"
    # One pool after another, so that there is time to interrupt between two.
    process = start(tiny, store, output, {}, batch_size=1)
    while not list((store / "pools").glob("*.parquet")):
        assert process.exitcode is None, output.with_suffix(".log").read_text()
        time.sleep(0.005)
    os.kill(process.pid or 0, signal.SIGINT)
    process.join()
    said = output.with_suffix(".log").read_text()
    left = contents(store)
    assert f"interrupted: {store} holds {len(left)} pools; the same command continues" in said
    assert 0 < len(left) < PROBLEMS
    run_tiny(tiny, store)
    assert contents(store) == whole[0]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="mounting needs Linux's unshare")
def test_a_full_and_a_read_only_mount(tmp_path: Path) -> None:
    """On a tmpfs of 256 KB that fills up, and is then mounted read-only: a read-only store can be read."""
    mount = 'mount -t tmpfs -o size=256k none "$1" && exec "$2" -c "$3" "$1" "$4"'
    here = str(Path(__file__).parent)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, MOUNTED, here],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    full, whole, read_only, readable = done.stdout.splitlines()
    assert "cannot be written (No space left on device); what it holds is safe" in full
    assert "cannot be written (Read-only file system); what it holds is safe" in read_only
    assert (whole, readable) == ("True", "True")


def test_documents_that_break_leave_the_others_alone(
    tiny: Path,
    whole: tuple[dict[str, bytes], float],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A problem of 100,000 characters, and one on which the model yields no finite logits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shutil.copytree(tiny / "model", tmp_path / "model")
    shutil.copytree(tiny / "tasks", tmp_path / "tasks")
    lines = (tmp_path / "tasks" / "toy.jsonl").read_text().splitlines()
    for number, problem in ((1, "x" * 100_000), (3, "Z?")):
        lines[number] = json.dumps({**json.loads(lines[number]), "problem": problem})
    (tmp_path / "tasks" / "toy.jsonl").write_text("\n".join(lines) + "\n")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    [broken] = AutoTokenizer.from_pretrained(tmp_path / "model")("Z").input_ids
    model.get_input_embeddings().weight.data[broken] = torch.nan
    model.save_pretrained(tmp_path / "model")

    results = run_tiny(tmp_path, tmp_path / "store")
    assert "1 of 6 prompts were cut on the left to fit a context of 256 tokens" in caplog.text
    assert (
        "6 rollouts of 1 documents ended early because the model gave logits that are not finite"
        in caplog.text
    )
    assert results["results"]["toy_eglr"]["exact_match,majority"] == 0.0
    found = contents(tmp_path / "store")
    same = [name for name, data in found.items() if whole[0].get(name) == data]
    assert [name.split(".")[1] for name in sorted(same)] == [f"{n:06d}" for n in (0, 2, 4, 5)]
    pools = {stored.key.doc_id: stored.pool for stored in read_store(tmp_path / "store").pools}
    assert {rollout.finish_reason for rollout in pools[3]} == {"error"}
    assert {rollout.finish_reason for rollout in pools[1]} <= {"stop", "length"}


def test_twice_the_same_command_gives_equal_bytes(tiny: Path, whole: tuple[dict[str, bytes], float]) -> None:
    run_tiny(tiny, tiny / "again")
    for path in (tiny / "whole").rglob("*"):
        if path.is_file():
            assert (tiny / "again" / path.relative_to(tiny / "whole")).read_bytes() == path.read_bytes(), path
