"""``eglr demo`` on the shipped model: page of both runs, table, verdict, and all of it once more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app


def test_the_demo_runs_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["demo", "-o", str(tmp_path / "demo"), "--limit", "3"]
    command = [sys.executable, "-m", "lm_eval_eglr.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "a demonstration and a test fixture" in done.stderr
    printed = done.stdout
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    assert "a demonstration and a test fixture" in again.stderr
    assert again.stdout == printed
    for row in ("16 rollouts each ", "one rollout (pass@1) ", "majority (maj@16) ", "any right (pass@16)† "):
        assert row in printed
    *table, verdict = printed.rstrip().split("\n\n")
    assert re.search(r"points \(95 % CI .* n = 3\)\.$", " ".join(verdict.split()))
    table = "\n\n".join(table).splitlines()
    assert max(map(len, table[1:])) <= 80, "the title names a folder, and a folder is as long as it is"
    for name in ("grid", "temperature"):
        assert list((tmp_path / "demo" / name / "pools").glob("*.parquet"))
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert all(f"demo · {name}" in page for name in ("grid", "temperature"))
