"""Launchers with a process that dies or runs out of memory: the same command ends as if it had not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked_run import start
from stored_runs import contents, make_tiny

from lm_eval_eglr.store import read_store

pytestmark = [
    pytest.mark.slow,  # every process imports torch and lm_eval
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the second process under /proc"),
]

PROBLEMS = 12
GRID = "spans=0:2,temperatures=0:0.7x2,entropy_threshold=0.1,dtype=float32"
# Each takes a port that is free: by default two runs at once would both listen on 29500.
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    *("--main_process_port", "0", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
]
# lm_eval, in which the second process may use no more memory than it has when its first pool is done.
STARVED = """
import os, resource, sys
from pathlib import Path

from lm_eval.__main__ import cli_evaluate
from lm_eval_eglr.store import StoreWriter

append = StoreWriter.append

def starved(self, *arguments):
    append(self, *arguments)
    if self.rank == 1:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used, used))
        bytearray(2**26)

StoreWriter.append = starved
cli_evaluate()
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder, PROBLEMS, max_gen_toks=16)
    return folder


@pytest.fixture(scope="module")
def one(tiny: Path) -> dict[str, bytes]:
    """The pools of one process that nothing disturbed."""
    process = start(tiny, tiny / "one", tiny / "one.txt", {}, temperatures="0:0.7x2")
    process.join()
    assert process.exitcode == 0, (tiny / "one.log").read_text()
    return contents(tiny / "one")


def launch(launcher: list[str], program: list[str], tiny: Path, store: Path) -> subprocess.Popen[Any]:
    arguments = [
        *("--model", "hf-eglr", "--model_args", f"pretrained={tiny / 'model'},{GRID},rollouts={store}"),
        *("--tasks", "toy_eglr", "--include_path", str(tiny / "tasks"), "--device", "cpu"),
    ]
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    with store.with_suffix(".log").open("a") as file:
        return subprocess.Popen(
            [*launcher, *program, *arguments], env={**os.environ, **settings}, stdout=file, stderr=file
        )


def second_process(launcher: int) -> int | None:
    """The launcher's process of rank 1, once it runs."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        try:
            if b"RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
        except OSError:
            continue
    return None


def wait_for(ready: Callable[[], Any], run: subprocess.Popen[Any], log: Path) -> Any:
    while not (found := ready()):
        assert run.poll() is None, log.read_text()
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("when", ["before its first pool", "after its first pool"])
def test_a_killed_process_of_torchrun(when: str, tiny: Path, one: dict[str, bytes], tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "store.log"
    run = launch(TORCHRUN, ["-m", "lm_eval"], tiny, store)
    if when == "after its first pool":  # lm_eval gives odd documents to the second process
        wait_for(lambda: list((store / "pools").glob("toy_eglr.*[13579].0.*")), run, log)
    victim = wait_for(lambda: second_process(run.pid), run, log)
    if when == "before its first pool":
        wait_for(lambda: (store / ".rank1.lock").exists(), run, log)  # it has opened the store
    os.kill(victim, signal.SIGKILL)
    assert run.wait(600) != 0
    assert "SIGKILL" in log.read_text()
    left = contents(store)
    assert left.items() <= one.items()
    assert launch(TORCHRUN, ["-m", "lm_eval"], tiny, store).wait(600) == 0, log.read_text()
    assert contents(store) == one
    assert read_store(store).missing == ()


def test_a_process_of_accelerate_that_runs_out_of_memory(
    tiny: Path, one: dict[str, bytes], tmp_path: Path
) -> None:
    store, log = tmp_path / "store", tmp_path / "store.log"
    (tmp_path / "starved.py").write_text(STARVED)
    assert launch(ACCELERATE, [str(tmp_path / "starved.py")], tiny, store).wait(600) != 0
    assert "MemoryError" in log.read_text()
    left = contents(store)
    assert left.keys() < one.keys()
    assert left.items() <= one.items()
    assert launch(ACCELERATE, ["-m", "lm_eval"], tiny, store).wait(600) == 0, log.read_text()
    assert contents(store) == one
    assert read_store(store).missing == ()
