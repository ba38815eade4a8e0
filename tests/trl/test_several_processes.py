"""Two processes train as one does: groups may lie on both, and no pool is drawn twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("several_processes.py")
GROUPS, CELLS = 3, 4


def run(folder: Path, processes: int) -> list[tuple[list[list[list[int]]], list[dict[str, float]]]]:
    """Completions by step, and metrics by step, of each process."""
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    arguments = [str(SCRIPT), str(folder), str(GROUPS * CELLS // processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.slow
def test_two_processes_have_the_rollouts_and_the_metrics_of_one(tmp_path: Path) -> None:
    [(alone, metrics)] = run(tmp_path / "one", 1)
    (left, one_half), (right, other_half) = run(tmp_path / "two", 2)
    assert [a + b for a, b in zip(left, right, strict=True)] == alone
    assert alone[0][CELLS : 2 * CELLS] != alone[0][2 * CELLS :], "a prompt that comes again has other draws"
    for mine, theirs in zip(metrics, one_half, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-6)
    assert len(metrics[0]) == 6
    assert other_half == one_half, "what is logged is of all processes"
