"""``eglr compare``: runs side by side, ours and plain lm_eval's."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from lm_eval_eglr.cli.output import print_json, progress
from lm_eval_eglr.cli.select import SelectorOption
from lm_eval_eglr.cli.sources import open_store, selectors_of
from lm_eval_eglr.reports.harness_results import read_results
from lm_eval_eglr.reports.leaderboard import Leaderboard, leaderboard, leaderboard_table
from lm_eval_eglr.reports.strategies import StrategyRow, strategy_row
from lm_eval_eglr.reports.tables import TEXT_FORMATS, print_rich, render

FORMATS = ("rich", *TEXT_FORMATS, "json")


def compare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORE_OR_RESULTS...", help="Rollout stores, or results JSON of plain lm_eval."
        ),
    ],
    selector: SelectorOption = None,
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "rich",
    baseline: Annotated[
        str | None,
        typer.Option(help="Row that the others are tested against: STRATEGY, or MODEL/STRATEGY."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Compare models and strategies in a leaderboard: benchmarks, averages, intervals, cost, significance.

    Exits with 0, with 1 when a store is damaged, with 2 when an option or a file is wrong.
    """
    form = "json" if json else form
    if form not in FORMATS:
        raise ValueError(f"format={form!r}: expected one of {', '.join(FORMATS)}")
    names = selectors_of(selector)
    board = leaderboard(_told_apart({path: _rows(path, names) for path in sources}), baseline)
    if form == "json":
        print_json(_as_json(board))
    elif form == "rich":
        print_rich(leaderboard_table(board))
    else:
        print(render(leaderboard_table(board), form), end="")


def _told_apart(rows: dict[Path, list[StrategyRow]]) -> list[StrategyRow]:
    """Adds the source's name to a model that several sources have on one task: runs with other options."""
    seen = Counter(key for group in rows.values() for key in {(row.model, row.task) for row in group})
    return [
        replace(row, model=f"{row.model} ({path.name})") if seen[row.model, row.task] > 1 else row
        for path, group in rows.items()
        for row in group
    ]


def _rows(path: Path, names: list[str]) -> list[StrategyRow]:
    if path.is_file():
        return read_results(path)
    store = open_store(path)
    tables = {task: store.documents(task) for task in store.tasks}
    pairs = [(task, name) for task in store.tasks for name in names]
    return [
        strategy_row(store.manifest.model, task, tables[task], name)
        for task, name in progress(pairs, f"Selecting from {path.name}")
    ]


def _as_json(board: Leaderboard) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    for key, row in board.rows.items():
        for task, each in row.items():
            test = board.test(key, task)
            best = board.best(task)
            entries.append(
                {
                    **{name: value for name, value in asdict(each).items() if name != "outcomes"},
                    "average": board.average(key),
                    "best": best is not None and best.value == each.value and not each.uses_reference,
                    "p_value": None if test is None else test.p_value,
                }
            )
    return entries
