"""Accuracy per subject and level, from logged samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.reports.breakdown import breakdown


def sample(subject: str, level: int, selector: str, score: float) -> dict[str, Any]:
    doc_id = f"{subject}{level}"
    return {
        "doc_id": doc_id,
        "doc": {"subject": subject, "level": level},
        "filter": selector,
        "exact_match": score,
    }


SAMPLES = [
    sample("Algebra", 2, "majority", 1.0),
    sample("Algebra", 10, "majority", 0.0),
    sample("Geometry", 2, "majority", 1.0),
    sample("Algebra", 2, "greedy", float("nan")),
    sample("Algebra", 10, "greedy", 1.0),
    sample("Geometry", 2, "greedy", 0.0),
    {"doc_id": 0, "doc": {"subject": "Algebra", "level": 2}, "filter": "pool", "truncated": 0.5},
]


def test_means_and_counts_by_hand() -> None:
    table = breakdown(SAMPLES, "subject")
    assert list(table) == ["Algebra", "Geometry", "all"]
    assert table["Algebra"]["majority"] == (0.5, 2)
    assert table["all"]["majority"] == (pytest.approx(2 / 3), 3)
    assert table["Geometry"]["greedy"] == (0.0, 1)
    assert str(table["Algebra"]["greedy"][0]) == "nan"
    assert "pool" not in table["all"]


def test_levels_are_ordered_as_numbers() -> None:
    assert list(breakdown(SAMPLES, "level")) == ["2", "10", "all"]


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["breakdown", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_prints_each_column_that_there_is(tmp_path: Path) -> None:
    path = tmp_path / "samples_math500_eglr_now.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in SAMPLES), encoding="utf-8")
    printed = run(path)
    assert "| subject | problems | majority | greedy |" in printed
    assert "| Geometry | 1 | 1.0000 | 0.0000 |" in printed
    assert "| all | 3 | 0.6667 | nan |" in printed
    assert "| level | problems |" in printed
    assert "by='fault': no sample has" in run(path, "--by", "fault", code=2)
    assert "by='colour': expected one of subject, level, fault" in run(path, "--by", "colour", code=2)
    assert "again; name the files of one run" in run(path, path, code=2)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "line 1: not JSON"), ("[]", "line 1: not a sample that lm_eval logged")]
)
def test_other_files_are_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(text, encoding="utf-8")
    assert message in run(path, code=2)
    assert "no such file" in run(tmp_path / "none.jsonl", code=2)
