"""The literal commands, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from stock_tasks import without_stock_tasks

NAMES = [
    f"{n}_eglr"
    for n in [
        "math500",
        "gsm8k",
        "aime24",
        "amc23",
        "minerva_math",
        "olympiadbench",
        "aime25",
        "svamp",
        "demo",
    ]
]


def lm_eval(*arguments: str) -> str:
    """Runs the harness's own command line in this checkout, plugged in by hand."""
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval_eglr", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **without_stock_tasks(), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_task_is_found_and_valid() -> None:
    assert "All tasks found and valid" in lm_eval("validate", "--tasks", ",".join([*NAMES, "eglr_math"]))


def test_every_task_is_listed() -> None:
    listed = lm_eval("ls", "tasks")
    assert all(re.search(rf"^\|{name} *\|", listed, re.MULTILINE) for name in NAMES)


def test_selectors_are_chosen_by_a_plain_list(spoken_model: Path, tmp_path: Path) -> None:
    arguments = f"--model hf --model_args pretrained={spoken_model},dtype=float32 --tasks demo_eglr --limit 2"
    arguments += " --metadata selectors=majority,oracle,repeats=3 --device cpu --log_samples"
    arguments += f" --gen_kwargs do_sample=True,temperature=0.7,max_gen_toks=8 --output_path {tmp_path}"
    table = lm_eval(*arguments.split())
    rows = [line.split("|")[3].strip() for line in table.splitlines() if "|exact_match|" in line]
    assert rows == ["majority", "oracle (uses reference)"]
    (samples,) = tmp_path.rglob("samples_demo_eglr_*.jsonl")
    first = json.loads(samples.read_text(encoding="utf-8").splitlines()[0])
    assert {"answer", "verdict", "exact_match"} <= first.keys()
    (results,) = tmp_path.rglob("results_*.json")
    metadata = json.loads(results.read_text(encoding="utf-8"))["configs"]["demo_eglr"]["metadata"]
    assert metadata["prompt_sha256"]
