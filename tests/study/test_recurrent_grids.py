"""Grids of recurrences: the same tables, in the words of their depth axis, beside the deepest level."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from eglr_selectors.estimators import decompose, solved_by
from study_stores import write_study
from typer.testing import CliRunner

from lm_eval_eglr import plots
from lm_eval_eglr.cli.app import app
from lm_eval_eglr.reports.headline import budget_comparisons, headline
from lm_eval_eglr.store import read_store
from lm_eval_eglr.study.matched import match_stores
from lm_eval_eglr.study.tables import TABLES, titles
from lm_eval_eglr.study.verdict import verdict

LEVELS = (2, 4, 8)
RIGHT = np.array(
    [
        # R2: T 0, two samples; R4; R8
        [1, 0, 0, 0, 0, 0, 0, 0, 0],  # only depth
        [0, 0, 0, 0, 1, 0, 0, 0, 0],  # only a joint cell
        [0, 0, 0, 0, 0, 0, 0, 1, 0],  # only temperature, at the deepest level
        [0, 0, 0, 0, 0, 0, 1, 0, 0],  # the greedy rollout of the deepest level: both
        [0] * 9,
    ]
    * 8,
    dtype=bool,
)

Both = tuple[Path, Path]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("both")
    grid = write_study(folder / "grid", RIGHT, LEVELS, axis="R")
    alone = write_study(folder / "alone", RIGHT[:, ::-1], (8,), (0.0, *[0.7] * 8), axis="R")
    return grid, alone


def run(*arguments: str | Path, code: int = 0) -> str:
    wide = {"COLUMNS": "200"}  # a narrow terminal breaks names over lines
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=wide)
    assert result.exit_code == code, result.output
    return result.output


def test_the_baseline_is_the_deepest_level(both: Both) -> None:
    [study] = match_stores([read_store(folder) for folder in both])
    assert (study.baseline, study.depths, len(study.plain)) == (8, [2, 4], 40)
    solved = [solved_by(parsed) for parsed in study.grid[:5]]
    assert solved == ["layer", "joint", "temperature", "both", "none"]
    assert decompose(study.grid)["layer"] == 8
    figures = {each.name: each.value for each in headline(study.grid, budget_comparisons(study.grid))}
    assert figures["Temperature only, oracle"] == "40.0 %"
    assert figures["Recurrences only, oracle"] == "40.0 %"
    assert figures["Joint grid, oracle"] == "80.0 %"


def test_a_deeper_run_is_a_baseline_and_a_shallower_one_is_none(both: Both, tmp_path: Path) -> None:
    grid = read_store(both[0])
    for depth, found in ((8, 40), (32, 40), (4, 0)):
        other = read_store(write_study(tmp_path / f"R{depth}", RIGHT, (depth,), (0.0, *[0.7] * 8), axis="R"))
        [study] = match_stores([grid, other])
        assert len(study.plain) == found, depth


def test_tables_speak_of_recurrences_and_never_of_spans(both: Both) -> None:
    printed = run("axes", *both)
    for words in (
        "Single rollouts by recurrences",
        "Greedy recurrences against plain greedy decoding",
        "recurrences only, oracle",
        "the recurrence axis and not the temperature axis",
        "only cells of R < 8 and a temperature above 0",
        "iterations per token, grid",
        "plain greedy and greedy R2",
        "R8, decoded again in other batches",
    ):
        assert words in printed, words
    assert "span" not in printed.replace("span_balanced", "")
    assert "layer" not in printed
    assert "gate" not in printed
    rows = [line.split() for line in run("axes", *both, "--table", "spans").splitlines()]
    assert [row[-3:-1] for row in rows if row[:1] == ["toy"]] == [["1.8", "20"], ["3.8", "20"], ["7.8", "20"]]


def test_a_verdict_names_its_axis(both: Both) -> None:
    said = " ".join(verdict(match_stores([read_store(folder) for folder in both])))
    assert "the recurrence axis" in said
    assert "layer" not in said
    [alone] = verdict(match_stores([read_store(both[0])]))
    assert alone.startswith("no verdict")
    assert "its deepest recurrences alone" in alone


def test_both_axes_at_once_are_refused(both: Both, write: Callable[..., Path]) -> None:
    other = write("spans", RIGHT)
    assert "give those of one depth axis at a time" in run("axes", *both, other, code=2)
    assert titles(match_stores([read_store(other)]))["spans"] == "Single rollouts by span"
    assert titles(match_stores([read_store(both[0])])).keys() == TABLES.keys()


def test_a_part_of_the_grid_is_named_by_its_own_axis(both: Both) -> None:
    table = run("select", both[0], "--recurrences", "4:8", "--selector", "greedy,oracle,first")
    assert "greedy" in table
    assert "the depth axis of" in run("select", both[0], "--spans", "4", code=2)
    assert "use --recurrences" in run("select", both[0], "--spans", "4", code=2)
    assert "a grid has one axis" in run("select", both[0], "--spans", "4", "--recurrences", "4", code=2)
    for wrong in ("3", "4:3", "0", "4.5"):
        said = run("select", both[0], "--recurrences", wrong, code=2)
        assert f"recurrences: {wrong.split(':')[-1]} is not among those of the rollouts, 2, 4, 8" in said


def test_comparing_ends_with_the_verdict_of_every_table(both: Both) -> None:
    assert "in pass@9: grid " in run("compare", *both)


def test_figures_have_the_levels_on_their_axes(both: Both) -> None:
    store = read_store(both[0])
    assert list(plots.grid(store).data[0].y) == ["R = 2", "R = 4", "R = 8"]
    assert set(plots.axes(store).data[1].y) == {"temperature (R = 8)"}
    shares, iterations = plots.recursion(store).data
    assert list(iterations.y) == pytest.approx([level - 0.2 for level in LEVELS])
    assert list(shares.y) == pytest.approx([20.0] * 3)
