"""A study's tables say what the estimators say of the same pools; its verdict follows the intervals."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from eglr_selectors.estimators import accuracy, compare_at_budget, solved_by
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.reports.tables import Table
from lm_eval_eglr.store import read_store
from lm_eval_eglr.study.matched import match_stores
from lm_eval_eglr.study.single_rollouts import kind_of
from lm_eval_eglr.study.tables import TABLES, titles
from lm_eval_eglr.study.verdict import power_statement, verdict

Both = tuple[Path, Path]
Write = Callable[..., Path]


def rows_of(table: Table) -> dict[tuple[str, ...], list[str]]:
    """Rows by their labels."""
    return {
        tuple(cell.text for cell in row[: table.labels]): [cell.text for cell in row[table.labels :]]
        for row in table.rows
    }


def test_every_table_is_printed_and_named(both: Both) -> None:
    done = CliRunner().invoke(app, ["axes", *map(str, both)])
    assert done.exit_code == 0, done.output
    names = titles(match_stores([read_store(folder) for folder in both]))
    for title in names.values():
        assert title in done.stdout
    assert "At equal numbers" in done.stdout
    assert names.keys() == TABLES.keys()
    listed = CliRunner().invoke(app, ["axes", "--help"]).stdout
    for name in TABLES:
        assert name in listed


def test_the_figures_are_those_of_the_estimators(both: Both) -> None:
    [study] = match_stores([read_store(folder) for folder in both])
    assert study.problems == len(study.plain) == 40
    table = rows_of(TABLES["structure"]([study]))
    for label, pools, selector in (
        ("greedy", study.grid, "greedy"),
        ("joint grid, oracle", study.grid, "oracle"),
        ("plain rollouts, oracle", study.plain, "oracle"),
        ("joint grid, majority", study.grid, "majority"),
        ("layers only, oracle", study.grid, "layer_oracle"),
        ("temperature only, oracle", study.grid, "temperature_oracle"),
    ):
        assert table[label,][1].startswith(f"{100 * accuracy(pools, selector).values.mean():.1f} ("), label
    difference = compare_at_budget(study.grid, study.plain).difference
    assert rows_of(TABLES["budgets"]([study]))["oracle, equal rollouts",][0].startswith(
        f"{100 * difference.value:+.1f} ("
    )
    axes = rows_of(TABLES["axes"]([study]))
    layer = sum(solved_by(parsed) == "layer" for parsed in study.grid)
    assert axes["the layer axis and not the temperature axis",][0].startswith(f"{layer}, ")
    assert sum(int(row[0].split(",")[0]) for row in axes.values()) == 40


def test_stores_in_any_order_give_the_same_csv(both: Both) -> None:
    printed = [
        CliRunner().invoke(app, ["axes", *map(str, order), "--table", "halves", "--format", "csv"]).stdout
        for order in (both, both[::-1])
    ]
    assert printed[0] == printed[1]
    assert all(len(row) == 7 for row in csv.reader(io.StringIO(printed[0])) if len(row) > 1)


@pytest.mark.parametrize(
    ("option", "named"), [(("--table", "axis"), "table='axis'"), (("--format", "word"), "format='word'")]
)
def test_an_unknown_choice_is_one_line(both: Both, option: tuple[str, str], named: str) -> None:
    done = CliRunner().invoke(app, ["axes", *map(str, both), *option])
    assert done.exit_code == 2
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_plain_rollouts_alone_are_no_study(both: Both) -> None:
    done = CliRunner().invoke(app, ["axes", str(both[1])])
    assert done.exit_code == 2
    assert "none holds a grid" in done.stderr


@pytest.mark.parametrize(
    ("grid", "plain", "said"),
    [
        (0.0, 1.0, "the grid solves less than temperature alone"),
        (1.0, 0.0, "the layer axis adds to temperature alone"),
        (1.0, 1.0, "the layer axis adds nothing that could be shown"),
    ],
)
def test_the_verdict_follows_the_interval(write: Write, grid: float, plain: float, said: str) -> None:
    shape = (30, 9)
    stores = [
        write("grid", np.full(shape, grid)),
        write("plain", np.full(shape, plain), (0,), (0.0, *[0.7] * 8)),
    ]
    lines = verdict(match_stores([read_store(folder) for folder in stores]))
    assert len(lines) == 3
    assert said in lines[1]
    excludes = grid != plain
    assert ("single tasks that exclude zero: oracle" in lines[1]) == excludes
    assert ("on no task does an interval exclude zero" in lines[1]) != excludes


def test_a_grid_without_a_greedy_column_or_plain_rollouts_has_tables_too(write: Write) -> None:
    rng = np.random.default_rng(0)
    sampled = write("sampled", rng.random((12, 4)) > 0.5, (0, 2), (0.7, 0.7))
    greedy = write("greedy", rng.random((12, 2)) > 0.5, (0, 2), (0.0,))
    plain = write("plain", rng.random((12, 4)) > 0.5, (0,), (0.7,) * 4)
    for stores in ([sampled], [greedy], [sampled, plain], [sampled, plain, greedy]):
        studies = match_stores([read_store(folder) for folder in stores])
        for name, table in TABLES.items():
            assert isinstance(table(studies), Table), name
        assert verdict(studies)


def test_power_is_stated_for_every_task_and_all_together() -> None:
    lines = power_statement({"a": 1000, "b": 100})
    assert "takes 696 problems" in lines[0]
    assert lines[1].startswith("a: 1000 problems, enough")
    assert lines[2].startswith("b: 100 problems, too few")
    assert lines[3].startswith("all together: 1100 problems, enough")
    with pytest.raises(ValueError, match="difference"):
        power_statement({"a": 10}, difference=0.2, discordant=0.1)


@pytest.mark.parametrize(
    ("token", "kind"),
    [(0, "number"), (1, "word"), (2, "mark or formula"), (None, "end of the text"), (99, None)],
)
def test_a_token_is_of_one_kind(token: int | None, kind: str | None) -> None:
    assert kind_of(token, ["1,234.5", " total", "\\frac", "12a"]) == kind
