"""``eglr demo`` on the shipped model: tables, verdict, page, and the same once more for nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_demo_runs_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lm_eval_eglr.cli", "demo", "-o", str(tmp_path / "demo"), "--limit", "3"]
    outputs = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "a demonstration and a test fixture" in done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    for row in ("majority ", "oracle (uses reference)", "layers only, oracle", "joint grid, oracle"):
        assert row in outputs[0]
    [matched] = [line for line in outputs[0].splitlines() if "temperature only at the budget, oracle" in line]
    assert matched.split()[6] == "16"
    assert "oracle at equal rollouts: the layer axis adds" in outputs[0]
    assert "majority at equal FLOPs: the layer axis adds" in outputs[0]
    for name in ("grid", "temperature"):
        assert list((tmp_path / "demo" / name / "pools").glob("*.parquet"))
    assert "recursed" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
