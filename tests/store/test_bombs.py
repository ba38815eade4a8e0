"""YAML and JSON bombs as task and results files: little text that is much once it is read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# What a command needs by itself, measured here, is below 250 MB; with lm_eval and torch 700 MB.
READ = """
import re, sys
from pathlib import Path
from lm_eval_eglr.cli.app import app
from typer.testing import CliRunner
result = CliRunner().invoke(app, sys.argv[1:])
print(result.exit_code, result.output.count("\\n"), type(result.exception).__name__)
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
LISTED = """
import re, sys
from pathlib import Path
from lm_eval.tasks import TaskManager
manager = TaskManager(include_path=sys.argv[1], include_defaults=False)
print(sorted(manager.all_tasks))
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read under /proc")
RESULTS = '{"results": {"toy": {"exact_match,none": 0.5, "alias": "toy"}}, "configs": {"toy": %s}}'
JSON_BOMBS = {
    "depth": RESULTS % ("[" * 200_000),
    "empty lists": RESULTS % ("[" + "[]," * 300_000 + "[]]"),
    "digits": RESULTS % ("9" * 100_000),
    "exponent": RESULTS.replace("0.5", "1e999999999"),
    "names": RESULTS % ("{" + ",".join(f'"{i}":0' for i in range(100_000)) + "}"),
    "list": "[" + "0," * 300_000 + "0]",
    "not UTF-8": "\udcff",
}


@proc
@pytest.mark.parametrize("name", JSON_BOMBS)
def test_a_results_file_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(JSON_BOMBS[name], encoding="utf-8", errors="surrogateescape")
    command = [sys.executable, "-c", READ, "compare", str(file), "--format", "markdown"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (code, lines, exception), used = done.stdout.split("\n")[0].split(), done.stdout.split("\n")[1]
    assert exception in ("NoneType", "SystemExit"), done.stdout
    assert code == "0" or (code, lines) == ("2", "1"), done.stdout
    assert int(used) < 400_000


@proc
@pytest.mark.slow  # lm_eval and torch are imported
def test_a_task_file_of_aliases_takes_no_memory_when_it_is_listed(tmp_path: Path) -> None:
    """Nine lists of nine aliases each: 9 ** 9 words for whoever writes them out, a few lists for others."""
    lines = ["task: bomb_eglr", "a0: &a0 [lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines) + "\n")
    (tmp_path / "other.yaml").write_text("task: other\n")
    command = [sys.executable, "-c", LISTED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    listed, used = done.stdout.splitlines()[-2:]
    assert json.loads(listed.replace("'", '"')) == ["bomb_eglr", "other"]
    assert int(used) < 1_500_000
