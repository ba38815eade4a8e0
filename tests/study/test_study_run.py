"""``eglr study``: what it decodes, what it refuses, that it resumes, and what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study_stores import cells_of
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.decoding.strategies.grid import parse_temperatures
from lm_eval_eglr.store import read_store
from lm_eval_eglr.study.run import StudyPlan, decode_study, plain_temperatures


@pytest.mark.parametrize(
    ("spans", "temperatures", "plain"),
    [
        ((0, 2, 4, 8), (0.0, 0.7, 0.7, 0.7), "0:0.7x15"),
        ((0, 1), (0.0,), "0:0.7x1"),
        ((0, 2), (0.7, 1.0), "0.7x2:1x2"),
        ((0, 2, 4), (0.0, 0.5, 1.0), "0:0.5x4:1x4"),
    ],
)
def test_there_are_as_many_plain_rollouts_as_cells(
    spans: tuple[int, ...], temperatures: tuple[float, ...], plain: str
) -> None:
    cells = cells_of(spans, temperatures)
    assert plain_temperatures(cells) == plain
    assert len(parse_temperatures(plain)) == len(cells)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tasks": ()}, "tasks"),
        ({"limit": 0}, "limit=0"),
        ({"batch_size": "many"}, "batch_size='many'"),
        ({"temperatures": "warm"}, "temperatures"),
        ({"samples": "0:0"}, "temperatures"),
        ({"model_args": {"spans": "0:2"}}, "model_args spans"),
        ({"include_path": Path("nowhere")}, "include_path"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_loaded(options: dict[str, Any], named: str) -> None:
    given = {"model": "demo", "tasks": ("demo_eglr",), "out": Path("study"), **options}
    with pytest.raises(ValueError, match=named):
        StudyPlan(**given)


def test_greedy_spans_have_a_store_of_their_own_where_the_grid_has_none() -> None:
    def names(temperatures: str | None) -> list[str]:
        return list(StudyPlan("demo", ("demo_eglr",), Path("s"), temperatures=temperatures).stores())

    assert names(None) == names("0:0.7") == ["grid", "samples"]
    assert names("0.7x2") == ["grid", "samples", "greedy"]


@pytest.mark.slow
def test_a_study_is_decoded_written_and_continued(tmp_path: Path) -> None:
    out = tmp_path / "study"
    options = ["study", "demo", "--tasks", "demo_eglr", "--out", str(out), "--spans", "0:2"]
    options += ["--temperatures", "0:0.7", "--picture", "none"]
    first = CliRunner().invoke(app, [*options, "--limit", "2"])
    assert first.exit_code == 0, first.output
    assert first.stdout.index("before the first rollout") < first.stdout.index("per cent correct")
    pools = {path: path.stat().st_mtime_ns for path in out.glob("*/pools/*.parquet")}
    assert len(pools) == 4
    more = CliRunner().invoke(app, [*options, "--limit", "3"])
    assert more.exit_code == 0, more.output
    after = {path: path.stat().st_mtime_ns for path in out.glob("*/pools/*.parquet")}
    assert len(after) == 6
    assert {path: after[path] for path in pools} == pools, "what was there is not decoded again"
    cells = {name: len(read_store(out / name).pools[0].pool) for name in ("grid", "samples")}
    assert cells == {"grid": 4, "samples": 4}
    page = (out / "study.md").read_text(encoding="utf-8")
    assert "run 1: demo_eglr: 2 problems" in page, "the first statement of power stays"
    assert "run 2: demo_eglr: 3 problems" in page
    assert "| joint grid, oracle | 4 |" in page
    assert (out / "report.html").is_file()
    assert {path.stem for path in (out / "tables").iterdir()} >= {"structure", "budgets", "cost"}


@pytest.mark.slow
def test_a_study_of_recurrences_has_samples_of_the_deepest(tmp_path: Path) -> None:
    plan = StudyPlan(
        "demo-recurrent", ("demo_eglr",), tmp_path, recurrences="1:3", temperatures="0:0.7", limit=1
    )
    stores = decode_study(plan, log=lambda line: None)
    cells = {name: [str(r.cell) for r in read_store(folder).pools[0].pool] for name, folder in stores.items()}
    assert cells == {
        "grid": ["R1/T0#0", "R1/T0.7#0", "R3/T0#0", "R3/T0.7#0"],
        "samples": ["R3/T0#0", "R3/T0.7#0", "R3/T0.7#1", "R3/T0.7#2"],
    }
