"""``eglr compare``: runs side by side, ours and plain lm_eval's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from eglr_selectors import available_selectors
from eglr_selectors.estimators.named import COUNTED

from lm_eval_eglr.cli.output import log, print_json, progress, say
from lm_eval_eglr.cli.select import SelectorOption, SizesOption
from lm_eval_eglr.cli.sources import (
    find_sources,
    imported_store,
    names_of,
    open_store,
    parse_sizes,
    selectors_of,
    without_undefined,
)
from lm_eval_eglr.importing import format_of
from lm_eval_eglr.importing.lm_eval_output import Run, runs_in
from lm_eval_eglr.reports.baseline_runs import temperature_run
from lm_eval_eglr.reports.equal_budget import EqualBudget
from lm_eval_eglr.reports.harness_results import read_results
from lm_eval_eglr.reports.leaderboard import leaderboard, records
from lm_eval_eglr.reports.leaderboard_table import leaderboard_table
from lm_eval_eglr.reports.selector_rows import StrategyRow, strategy_row
from lm_eval_eglr.reports.tables import TEXT_FORMATS, csv_of, print_rich, render
from lm_eval_eglr.store import Document, Store
from lm_eval_eglr.store.manifest import NAME as MANIFEST

FORMATS = ("rich", *TEXT_FORMATS, "json")


def compare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help="Rollout stores, results JSON or output folders of plain lm_eval, rollouts of other tools, "
            "or folders of stores.",
        ),
    ],
    selector: SelectorOption = None,
    k: SizesOption = None,
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "rich",
    baseline: Annotated[
        str | None,
        typer.Option(
            help="What the others are tested against: a source (its path or the end of it), row for row of "
            "the same strategy; or one row: STRATEGY, SOURCE/STRATEGY or MODEL/STRATEGY. "
            "[default: the first of several sources]"
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="NAME[,NAME]",
            help="Only these benchmarks. [default: all; aggregates of groups only if named]",
        ),
    ] = None,
    caption: Annotated[str, typer.Option(help="Of the LaTeX table. [default: what its rows share]")] = "",
    label: Annotated[str, typer.Option(help="Of the LaTeX table, for \\ref.")] = "tab:eglr",
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Compare models and strategies: benchmarks, intervals, cost, and which differences are real.

    A grid beside a run of temperature alone ends with who wins at the same number of rollouts. Exits with
    0, with 1 when a store is damaged, with 2 when an option or a file is wrong.
    """
    form = "json" if json else form
    if form not in FORMATS:
        raise ValueError(f"format={form!r}: expected one of {', '.join(FORMATS)}")
    names = selectors_of(selector, parse_sizes(k))
    wanted = None if task is None else [name.strip() for name in task.split(",")]
    called = names_of(find_sources(sources))
    read = [_read(path, name, names, wanted, selector is not None) for path, name in called.items()]
    rows = [row for each in read for row in each.rows]
    _check_found(rows, wanted, names if selector is not None else None)
    by_name = {name: path for path, name in called.items()}
    if baseline is None and len(called) > 1:
        baseline = next(iter(called.values()))
    board = leaderboard(without_undefined(rows, selector), baseline, by_name)
    budgets = _equal_budgets(read)
    if form in ("json", "csv"):
        found = records(board)
        if form == "csv":
            print(csv_of(found), end="")
            return
        for record in found:
            record["equal_budget"] = (
                budgets[record["store"], record["task"]].record()
                if (record["store"], record["task"]) in budgets
                else None
            )
        print_json(found)
    elif form == "rich":
        print_rich(leaderboard_table(board))
        for (_, name), budget in budgets.items():
            print()
            table = budget.table()
            print_rich(replace(table, title=name) if len(board.tasks) > 1 else table)
            say(budget.verdict())
    else:
        table = leaderboard_table(board)
        notes = [budget.verdict() for budget in budgets.values()]
        table = replace(table, notes=(*table.notes, *notes))
        print(render(table, form, caption=caption, label=label), end="")


@dataclass(frozen=True, slots=True)
class Read:
    """What was read from one source.

    Attributes:
        name: What it is called.
        rows: Its rows.
        store: The store, if it is one.
        documents: The store's documents by task.
    """

    name: str
    rows: list[StrategyRow]
    store: Store | None
    documents: dict[str, list[Document]]


def _read(path: Path, name: str, names: list[str], wanted: list[str] | None, named: bool) -> Read:
    chosen = names if named else None
    if path.is_file() and path.suffix == ".json" and format_of(path) is None:
        return Read(name, _results_rows(path, name, chosen, wanted), None, {})
    if path.is_dir() and not (path / MANIFEST).is_file():
        for run in runs_in(path):
            if run.folder == path:
                return _run_rows(run, name, names, chosen, wanted)
    return _store_rows(open_store(path), name, names, wanted)


def _run_rows(
    run: Run, name: str, names: list[str], chosen: list[str] | None, wanted: list[str] | None
) -> Read:
    """A run of plain lm_eval: selectors where it logged several samples per problem, else its results."""
    store = imported_store(run.folder) if run.samples else None
    found = Read(name, [], None, {})
    if store is not None:
        sampled = {stored.key.task for stored in store.pools if len(stored.pool) > 1}
        tasks = [task for task in store.tasks if task in sampled and (wanted is None or task in wanted)]
        found = _store_rows(store, name, names, tasks)
    if run.results is not None:
        rows = _results_rows(run.results, name, chosen, wanted)
        found = replace(found, rows=found.rows + [row for row in rows if row.task not in found.documents])
    return found


def _store_rows(store: Store, name: str, names: list[str], wanted: list[str] | None) -> Read:
    tasks = [task for task in store.tasks if wanted is None or task in wanted]
    tables = {task: store.documents(task) for task in tasks}
    pairs = [(task, strategy) for task in tasks for strategy in names]
    rows = [
        strategy_row(store.manifest.model, task, tables[task], strategy, store=name)
        for task, strategy in progress(pairs, f"Selecting from {name}")
    ]
    return Read(name, rows, store, tables)


def _results_rows(
    path: Path, name: str, names: list[str] | None, wanted: list[str] | None
) -> list[StrategyRow]:
    """Rows of a results file. ``--selector`` chooses among ours; rows of plain lm_eval know no selectors."""
    results = read_results(path)
    if wanted is not None:
        rows = [row for row in results.rows if row.task in wanted]
    else:
        if results.left_out:
            log(f"{path}: without {', '.join(results.left_out)}, which have no metric of correctness")
        rows = [row for row in results.rows if row.task not in results.groups] or results.rows
    known = {*available_selectors(), *COUNTED}
    ours = {row.strategy for row in rows if re.split(r"[(@]", row.strategy)[0] in known}
    if names is not None and ours:
        there = ", ".join(dict.fromkeys(row.strategy for row in rows))
        rows = [row for row in rows if row.strategy in names or row.strategy not in ours]
        if not rows:
            log(f"{path}: has no row {', '.join(names)}; it has {there}")
    return [replace(row, store=name) for row in rows]


def _check_found(rows: Sequence[StrategyRow], wanted: list[str] | None, names: list[str] | None) -> None:
    found = {row.task for row in rows}
    for name in wanted or ():
        if name not in found:
            raise ValueError(f"task={name!r}: none of the sources has it")
    if not rows:
        raise ValueError(f"selector={','.join(names or ())!r}: none of the sources has such a row")


def _equal_budgets(read: Sequence[Read]) -> dict[tuple[str, str], EqualBudget]:
    """Every grid that another source has a run of temperature alone for, by source and task."""
    found: dict[tuple[str, str], Any] = {}
    stores = [each for each in read if each.store is not None]
    for each in stores:
        assert each.store is not None
        for task, documents in each.documents.items():
            others = [(other.store, other.documents[task]) for other in stores if task in other.documents]
            run = temperature_run(each.store, documents, [(s, d) for s, d in others if s is not None])
            if run is None:
                continue
            name = next(o.name for o in stores if o.store is not None and o.store.folder == run.folder)
            grid = [documents[place].parsed for place in run.places]
            found[each.name, task] = EqualBudget(grid, run.pools, (each.name, name))
    return found
