"""Leaderboards: whose row it is, what it is tested against, what fits, and what other programs read."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from eglr_selectors import Cell, PoolCost, Rollout, RolloutPool
from eglr_selectors.estimators import maj_at_k, pass_at_k
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import COMMANDS, app
from lm_eval_eglr.reports.leaderboard import leaderboard
from lm_eval_eglr.reports.leaderboard_table import leaderboard_table
from lm_eval_eglr.reports.selector_rows import StrategyRow
from lm_eval_eglr.store import Manifest, PoolKey, StoreWriter, read_store

GRID = [(0, 0.0, 0), (0, 0.7, 0), (2, 0.0, 0), (2, 0.7, 0)]
PLAIN = [(0, 0.0, 0), (0, 0.7, 0), (0, 0.7, 1), (0, 0.7, 2)]


def run(*arguments: str | Path, code: int = 0, columns: int | None = None) -> str:
    environment = {} if columns is None else {"COLUMNS": str(columns)}
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def write_store(
    folder: Path, cells: Sequence[tuple[int, float, int]], right: Sequence[int], model: str = "tiny"
) -> Path:
    """A store in which the first so many rollouts of each problem are right."""
    writer = StoreWriter(folder)
    keys = [PoolKey("toy", i, document=str(i), reference="1") for i in range(len(right))]
    with writer.writing(Manifest({"model": model})):
        writer.plan(keys)
        for key, count in zip(keys, right, strict=True):
            rollouts = tuple(
                Rollout(
                    r"\boxed{1}" if place < count else rf"\boxed{{{place + 5}}}", Cell(*cell), "stop", (1, 2)
                )
                for place, cell in enumerate(cells)
            )
            cost = PoolCost(5, 8, 8, flops=3e9, plain_flops=4e9)
            writer.append(key, RolloutPool(rollouts, f"Problem {key.doc_id}?", cost))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_store(tmp_path / "runs" / "grid", GRID, [1, 2, 0, 4, 0, 3, 0, 0, 1, 0])
    write_store(tmp_path / "runs" / "plain", PLAIN, [3, 2, 1, 4, 0, 3, 2, 0, 1, 2])
    return tmp_path / "runs"


def test_every_row_says_whose_it_is(runs: Path) -> None:
    rows = json.loads(run("compare", runs, "--selector", "majority,greedy", "--json"))
    assert {(row["store"], row["model"]) for row in rows} == {("grid", "tiny"), ("plain", "tiny")}
    listed = json.loads(run("select", runs, "--selector", "majority", "--json"))
    assert [row["store"] for row in listed["strategies"]] == ["grid", "plain"]
    assert [row["store"] for row in listed["pools"]] == ["grid", "plain"]
    shown = run("compare", runs, "--selector", "majority")
    assert shown.splitlines()[0] == "tiny · toy · 10 problems"
    assert re.search(r"^grid +majority ", shown, re.MULTILINE)
    alone = run("select", runs / "grid", "--selector", "majority")
    assert alone.splitlines()[0] == "tiny · toy · grid · 10 problems"


def test_stores_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_store(tmp_path / place / "grid", GRID, [1, 0])
    rows = json.loads(run("compare", tmp_path / "a", tmp_path / "b", "--selector", "majority", "--json"))
    assert [row["store"] for row in rows] == ["a/grid", "b/grid"]
    assert "2 rows are called so" in run(
        "compare", tmp_path / "a", tmp_path / "b", "--baseline", "grid", "--selector", "majority", code=2
    )


@pytest.mark.parametrize(
    ("baseline", "tested"),
    [
        (None, {"plain/majority": "grid/majority", "plain/greedy": "grid/greedy"}),
        ("FOLDER/plain", {"grid/majority": "plain/majority", "grid/greedy": "plain/greedy"}),
        ("plain", {"grid/majority": "plain/majority", "grid/greedy": "plain/greedy"}),
        ("runs/plain", {"grid/majority": "plain/majority", "grid/greedy": "plain/greedy"}),
        (
            "greedy",
            {"grid/majority": "grid/greedy", "plain/majority": "grid/greedy", "plain/greedy": "grid/greedy"},
        ),
        (
            "plain/greedy",
            {
                "grid/majority": "plain/greedy",
                "grid/greedy": "plain/greedy",
                "plain/majority": "plain/greedy",
            },
        ),
    ],
)
def test_a_baseline_is_a_store_or_a_row(runs: Path, baseline: str | None, tested: dict[str, str]) -> None:
    options = [] if baseline is None else ["--baseline", baseline.replace("FOLDER", str(runs))]
    rows = json.loads(run("compare", runs, "--selector", "majority,greedy,oracle", *options, "--json"))
    found = {
        f"{row['store']}/{row['strategy']}": row["baseline"]
        for row in rows
        if row["baseline"] is not None and not row["uses_reference"]
    }
    assert found == tested


def test_an_unknown_baseline_is_one_line_that_names_those_there_are(runs: Path) -> None:
    shown = run("compare", runs, "--selector", "majority", "--baseline", "nothing", code=2)
    assert "baseline='nothing'" in shown
    assert "grid, plain, majority" in shown


def test_many_tests_are_corrected_and_counted() -> None:
    def row(store: str, strategy: str, right: int) -> StrategyRow:
        outcomes = {i: float(i < right) for i in range(20)}
        value = right / 20
        return StrategyRow(
            "m", "t", strategy, value, 0.1, value - 0.1, value + 0.1, 20, outcomes=outcomes, store=store
        )

    names = [f"s{i}" for i in range(10)]
    rows = [row("a", name, 10) for name in names] + [
        row("b", name, 10 + (i == 0) * 7) for i, name in enumerate(names)
    ]
    board = leaderboard(rows, "a")
    [lowest] = [test for (key, _), test in board.tests.items() if key.strategy == "s0"]
    assert lowest.p_value == pytest.approx(2 / 2**7)
    assert lowest.adjusted == pytest.approx(10 * 2 / 2**7)
    table = leaderboard_table(board)
    assert any("no row differs from a (McNemar, Holm for 10 tests" in note for note in table.notes)
    alone = leaderboard_table(leaderboard([rows[0], rows[10]], "a"))
    assert any("* differs from a (McNemar, one test" in note for note in alone.notes)


def test_rows_are_sorted_oracles_below_a_line_and_the_clearly_worse_grey() -> None:
    def row(strategy: str, value: float, uses_reference: bool = False) -> StrategyRow:
        return StrategyRow(
            "m", "t", strategy, value, 0.01, value - 0.05, value + 0.05, 50, uses_reference=uses_reference
        )

    rows = [
        row("low", 0.3),
        row("oracle", 0.9, True),
        row("near", 0.56),
        row("best", 0.6),
        row("least", math.nan),
    ]
    table = leaderboard_table(leaderboard(rows))
    assert [cells[0].text for cells in table.rows] == ["best", "near", "low", "least", "oracle†"]
    assert table.rules == (4,)
    figures = [cells[1] for cells in table.rows]
    assert [(cell.bold, cell.grey) for cell in figures[:3]] == [(True, False), (False, False), (False, True)]
    assert figures[0].text == "60.0 [55–65]"
    assert "average" not in table.header


def test_figures_of_several_k_stay_in_order(runs: Path) -> None:
    rows = json.loads(run("compare", runs / "grid", "--k", "1,2,4", "--json"))
    assert [row["strategy"] for row in rows] == ["maj@1", "maj@2", "maj@4", "pass@1", "pass@2", "pass@4"]
    pools = [document.parsed for document in read_store(runs / "grid").documents("toy")]
    for row in rows:
        name, k = row["strategy"].split("@")
        estimates = (maj_at_k if name == "maj" else pass_at_k)(pools, int(k))
        assert row["value"] == pytest.approx(estimates.mean)
        assert row["rollouts"] == int(k)
        assert row["uses_reference"] == (name == "pass")
    named = json.loads(
        run("select", runs / "grid", "--selector", "majority,pass@k,oracle@2", "--k", "4", "--json")
    )
    assert [row["strategy"] for row in named["strategies"]] == ["majority@4", "pass@4", "oracle@2"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--k", "40"], "k=40: the pools of grid have 4 rollouts"),
        (["--k", "0"], "k='0'"),
        (["--k", "2:4"], "k='2:4'"),
        (["--selector", "pass@k"], "'pass@k'"),
        (["--selector", "pass@0"], "'pass@0'"),
        (["--selector", "nothing@4"], "selector 'nothing'"),
    ],
)
def test_a_size_that_cannot_be_is_refused(runs: Path, options: list[str], said: str) -> None:
    shown = run("select", runs / "grid", *options, code=2)
    assert said in shown
    assert shown.strip().count("\n") == 0


def test_two_stores_end_with_who_wins_at_as_many_rollouts(runs: Path) -> None:
    shown = run("compare", runs, "--selector", "majority")
    assert "4 rollouts each" in shown
    last = " ".join(shown.split())  # the sentence may take two lines of a terminal
    assert re.search(r"pass@4: grid −\d+\.\d points \(95 % CI .* n = 10\)\.$", last)
    [budget] = {
        json.dumps(row["equal_budget"])
        for row in json.loads(run("compare", runs, "--json"))
        if row["equal_budget"]
    }
    assert json.loads(budget)["against"] == "plain"
    other = write_store(runs.parent / "other" / "plain", PLAIN, [3] * 10, model="another")
    assert "rollouts each" not in run("compare", runs / "grid", other, "--selector", "majority")


@pytest.mark.parametrize("columns", [80, 60, 46])
def test_columns_go_before_rows_are_taken_apart(runs: Path, columns: int) -> None:
    shown = run("compare", runs, "--selector", "majority,greedy,span_balanced", columns=columns)
    assert max(map(len, shown.splitlines())) <= columns
    assert re.search(r"^grid +majority +\d+\.\d \[", shown, re.MULTILINE)
    assert ("not shown at this width:" in shown) == (columns < 80)


def test_csv_has_numbers_in_columns(runs: Path) -> None:
    rows = list(
        csv.DictReader(io.StringIO(run("compare", runs, "--format", "csv", "--selector", "majority,greedy")))
    )
    expected = json.loads(run("compare", runs, "--json", "--selector", "majority,greedy"))
    for row, record in zip(rows, expected, strict=True):
        for name in ("value", "low", "high", "stderr", "rollouts", "tokens"):
            assert float(row[name]) == record[name]
        assert row["flops"] == ("" if record["flops"] is None else repr(record["flops"]))


def test_latex_has_a_caption_and_a_label(runs: Path) -> None:
    options = ["--caption", "Grid & plain", "--label", "tab:mine", "--selector", "majority,oracle"]
    shown = run("compare", runs, "--format", "latex", *options)
    for part in (
        r"\toprule",
        r"\bottomrule",
        r"\caption{Grid \& plain}",
        r"\label{tab:mine}",
        r"oracle$\dagger$",
    ):
        assert part in shown
    assert shown.count(r"\midrule") == 2
    assert shown.count("{") == shown.count("}")


def test_what_is_undefined_everywhere_is_a_row_only_if_asked_for(runs: Path) -> None:
    assert "weighted_vote" not in run("select", runs / "grid")
    assert "weighted_vote" in run("select", runs / "grid", "--selector", "weighted_vote")


def test_stores_are_listed_with_what_is_missing(runs: Path) -> None:
    next((runs / "plain" / "pools").glob("*.parquet")).unlink()
    found = json.loads(run("ls", runs, "--json"))["stores"]
    assert [(Path(each["store"]).name, each["done"], each["missing"]) for each in found] == [
        ("grid", 10, 0),
        ("plain", 9, 1),
    ]
    assert found[0]["flops"] == 10 * 3e9
    shown = run("ls", runs)
    assert re.search(r"^plain +tiny +toy +9 +1 ", shown, re.MULTILINE)
    (runs / "plain" / "manifest.json").write_text("{")
    assert "grid" in run("ls", runs, code=1)


def test_every_command_shows_an_example_of_itself() -> None:
    for name, command in COMMANDS.items():
        shown = run(name, "--help")
        assert command.examples
        for example in command.examples:
            assert example.startswith(f"eglr {name}")
            assert example in shown
    assert run("--version").startswith("eglr ")


def test_verifiers_are_listed() -> None:
    listed = json.loads(run("verifiers", "--json"))
    assert "learned" in {entry["name"] for entry in listed}
    assert "learned(" in run("verifiers")
