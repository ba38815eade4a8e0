"""The example trains, writes its curve, and the curves make a table."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def curve(path: Path, **rows: list[str]) -> Path:
    """A file as train.py writes it, from its columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([rows, *zip(*rows.values(), strict=True)])
    return path


def test_the_tables_have_means_over_seeds_and_what_each_run_gained(tmp_path: Path) -> None:
    def run_of(seed: str, after: str, gain: str) -> Path:
        return curve(
            tmp_path / f"{seed}.csv",
            rollouts=["grid"] * 2,
            seed=[seed] * 2,
            step=["0", "100"],
            cpu_seconds=["1", "90"],
            reward=["", "0.5"],
            validation_sampled=["0.6", after],
            rise=["0", gain],
            rise_error=["0", "0.01"],
            validation_greedy=["0.7", "0.7"],
            greedy_rise=["0", "-0.02"],
            greedy_rise_error=["0", "0.02"],
            recursed_tokens=["", "0.1"],
            kl_recursed=["", "0.25"],
            clipped_tokens=["", "0"],
        )

    printed = run("table.py", run_of("0", "0.62", "0.02"), run_of("1", "0.68", "0.08"))
    means, gains = printed.split("\n\n")
    # The standard error of 62 and 68 is half their distance.
    assert means.splitlines()[2:] == [
        "| grid | 0 | 2 |  | 60.0 ± 0.0 | 70.0 ± 0.0 |  |  |  |",
        "| grid | 100 | 2 | 50.0 ± 0.0 | 65.0 ± 3.0 | 70.0 ± 0.0 | 10.0 ± 0.0 | 0.250 ± 0.000 | "
        "0.00 ± 0.00 |",
    ]
    assert gains.splitlines()[2:] == [
        "| grid | 0 | 100 | 90 | +2.0 ± 1.0 (+2.0 errors) | -2.0 ± 2.0 (-1.0 errors) |",
        "| grid | 1 | 100 | 90 | +8.0 ± 1.0 (+8.0 errors) | -2.0 ± 2.0 (-1.0 errors) |",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("rollouts", ["trl", "samples", "grid"])
def test_the_example_writes_a_curve(rollouts: str, tmp_path: Path) -> None:
    pytest.importorskip("trl.trainer", reason="needs TRL, which needs Python 3.11")
    small = ["--steps", "2", "--batch", "8", "--validation", "4", "--every", "1"]
    run("train.py", "--rollouts", rollouts, "--output", tmp_path, *small)
    path = tmp_path / "curve.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert all(0 <= float(row["validation_sampled"]) <= 1 for row in rows)
    before, after = (float(rows[i]["validation_sampled"]) for i in (0, 2))
    assert float(rows[2]["rise"]) == pytest.approx(after - before, abs=1e-3)
    assert (rows[1]["recursed_tokens"] != "") == (rollouts != "trl")
    assert (tmp_path / "model.safetensors").exists()
    table = [line.split(" | ")[0] for line in run("table.py", path).splitlines()]
    assert table.count(f"| {rollouts}") == 3 + 1
    compared = run("evaluate.py", tmp_path, "--problems", "2", "--samples", "1").splitlines()
    assert [line.split(" | ")[0] for line in compared[2:]] == ["| demo", f"| {tmp_path}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--batch", "12"), "--batch=12: expected a multiple of 8"),
        (("--batch", "72"), "--batch=72: expected a multiple of 64"),
        (("--operations", "1"), "invalid choice: 1"),
        (("--validation", "1"), "--validation=1: expected 2 or more"),
    ],
)
def test_options_that_cannot_be_are_refused(option: tuple[str, str], message: str, tmp_path: Path) -> None:
    pytest.importorskip("trl.trainer", reason="needs TRL, which needs Python 3.11")
    done = subprocess.run(
        [sys.executable, str(FOLDER / "train.py"), "--output", str(tmp_path), *option],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2
    assert message in done.stderr
