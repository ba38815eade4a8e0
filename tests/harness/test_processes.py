"""Two processes give the table and the rollouts of one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from eglr_selectors import available_selectors

GRID = "spans=0:1:3,temperatures=0:1x2,entropy_threshold=0.5"


def run(folder, store, launcher):
    command = [
        *launcher,
        *("-m", "lm_eval", "--model", "hf-eglr"),
        *("--model_args", f"pretrained={folder},{GRID},rollouts={store}"),
        *(
            "--tasks",
            "demo_eglr",
            "--limit",
            "3",
            "--gen_kwargs",
            "max_gen_toks=12",
            "--device",
            "cpu",
        ),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "exact_match" in line or "|pool" in line]


def rollouts(store):
    from lm_eval_eglr.store.reader import read_store

    return sorted(
        (entry.head.task, entry.head.doc_id, [(rollout.cell, rollout.tokens) for rollout in entry.pool])
        for entry in read_store(store).pools
    )


@pytest.mark.slow
def test_two_processes_are_one(tiny_folder, tmp_path):
    """With an odd number of problems, for which lm_eval repeats the last one on the second process."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    one = run(tiny_folder, tmp_path / "one", [sys.executable])
    two = run(tiny_folder, tmp_path / "two", torchrun)
    assert one == two
    assert rollouts(tmp_path / "one") == rollouts(tmp_path / "two")
    assert len(one) >= len(available_selectors())
