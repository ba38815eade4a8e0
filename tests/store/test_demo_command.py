"""``eglr demo`` on the shipped model: page of both runs, table, verdict, and all of it once more."""

from __future__ import annotations

import re
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
    for row in ("16 rollouts each ", "one rollout (pass@1) ", "majority (maj@16) ", "any right (pass@16)† "):
        assert row in outputs[0]
    *table, verdict = outputs[0].rstrip().split("\n\n")
    assert re.search(r"points \(95 % CI .* n = 3\)\.$", " ".join(verdict.split()))
    table = "\n\n".join(table).splitlines()
    assert max(map(len, table[1:])) <= 80, "the title names a folder, and a folder is as long as it is"
    for name in ("grid", "temperature"):
        assert list((tmp_path / "demo" / name / "pools").glob("*.parquet"))
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert all(f"demo · {name}" in page for name in ("grid", "temperature"))
