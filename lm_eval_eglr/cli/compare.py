"""``eglr compare``: runs side by side, ours and plain lm_eval's."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from lm_eval_eglr.cli.output import log, print_json, progress
from lm_eval_eglr.cli.select import SelectorOption
from lm_eval_eglr.cli.sources import imported_store, open_store, selectors_of
from lm_eval_eglr.importing import format_of
from lm_eval_eglr.importing.lm_eval_output import Run, runs_in
from lm_eval_eglr.reports.harness_results import read_results
from lm_eval_eglr.reports.leaderboard import Leaderboard, leaderboard, leaderboard_table
from lm_eval_eglr.reports.selector_rows import StrategyRow, strategy_row
from lm_eval_eglr.reports.tables import TEXT_FORMATS, print_rich, render
from lm_eval_eglr.store import Store
from lm_eval_eglr.store.manifest import NAME as MANIFEST

FORMATS = ("rich", *TEXT_FORMATS, "json")


def compare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORE_OR_RESULTS...",
            help="Rollout stores, results JSON or output folders of plain lm_eval, rollouts of other tools.",
        ),
    ],
    selector: SelectorOption = None,
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "rich",
    baseline: Annotated[
        str | None,
        typer.Option(help="Row that the others are tested against: STRATEGY, or MODEL/STRATEGY."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="NAME[,NAME]",
            help="Only these benchmarks. [default: all; aggregates of groups only if named]",
        ),
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
    wanted = None if task is None else [name.strip() for name in task.split(",")]
    groups = {path: _rows(path, names, wanted) for path in dict.fromkeys(sources)}
    found = {row.task for rows in groups.values() for row in rows}
    for name in wanted or ():
        if name not in found:
            raise ValueError(f"task={name!r}: none of the sources has it")
    board = leaderboard(_disambiguate(groups), baseline)
    if form == "json":
        print_json(_as_json(board))
    elif form == "rich":
        print_rich(leaderboard_table(board))
    else:
        print(render(leaderboard_table(board), form), end="")


def _disambiguate(rows: dict[Path, list[StrategyRow]]) -> list[StrategyRow]:
    """Adds the source's name to a model that several sources have on one task: runs with other options."""
    seen = Counter(key for group in rows.values() for key in {(row.model, row.task) for row in group})
    return [
        replace(row, model=f"{row.model} ({path.name})") if seen[row.model, row.task] > 1 else row
        for path, group in rows.items()
        for row in group
    ]


def _rows(path: Path, names: list[str], wanted: list[str] | None) -> list[StrategyRow]:
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder")
    if path.is_file() and path.suffix == ".json" and format_of(path) is None:
        return _results_rows(path, wanted)
    if path.is_dir() and not (path / MANIFEST).is_file():
        runs = runs_in(path)
        if runs:
            return [row for run in runs for row in _run_rows(run, names, wanted)]
    return _store_rows(open_store(path), path, names, wanted)


def _results_rows(path: Path, wanted: list[str] | None) -> list[StrategyRow]:
    results = read_results(path)
    if wanted is not None:
        return [row for row in results.rows if row.task in wanted]
    if results.left_out:
        log(f"{path}: without {', '.join(results.left_out)}, which have no metric of correctness")
    parts = [row for row in results.rows if row.task not in results.groups]
    return parts or results.rows


def _run_rows(run: Run, names: list[str], wanted: list[str] | None) -> list[StrategyRow]:
    """A run of plain lm_eval: selectors where it logged several samples per problem, else its results."""
    store = imported_store(run.folder) if run.samples else None
    if store is not None:
        sampled = {stored.key.task for stored in store.pools if len(stored.pool) > 1}
        tasks = [task for task in store.tasks if task in sampled and (wanted is None or task in wanted)]
        rows = _store_rows(store, run.folder, names, tasks)
    else:
        sampled, rows = set(), []
    if run.results is not None:
        rows += [row for row in _results_rows(run.results, wanted) if row.task not in sampled]
    return rows


def _store_rows(store: Store, path: Path, names: list[str], wanted: list[str] | None) -> list[StrategyRow]:
    tasks = [task for task in store.tasks if wanted is None or task in wanted]
    tables = {task: store.documents(task) for task in tasks}
    pairs = [(task, name) for task in tasks for name in names]
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
                    **{
                        name: value
                        for name, value in asdict(each).items()
                        if name not in ("outcomes", "identities")
                    },
                    "average": board.average(key),
                    "best": best is not None and best.value == each.value and not each.uses_reference,
                    "p_value": None if test is None else test.p_value,
                    "test": None if test is None else test.kind,
                    "test_problems": None if test is None else test.problems,
                }
            )
    return entries
