"""The example trains, writes its curve, and the curves make a table."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl.trainer", reason="needs TRL, which needs Python 3.11")

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "grpo"


def run(script: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("rollouts", ["trl", "samples", "grid"])
def test_the_example_writes_a_curve(rollouts: str, tmp_path: Path) -> None:
    small = ["--steps", "2", "--batch", "8", "--validation", "4", "--every", "1"]
    run("train.py", "--rollouts", rollouts, "--output", tmp_path, *small)
    curve = tmp_path / "curve.csv"
    with curve.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert all(0 <= float(row["validation_sampled"]) <= 1 for row in rows)
    assert (rows[1]["recursed_tokens"] != "") == (rollouts != "trl")
    assert (tmp_path / "model.safetensors").exists()
    assert run("table.py", curve).count(f"| {rollouts} |") == 3
