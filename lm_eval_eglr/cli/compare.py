"""``eglr compare``: runs side by side, ours and plain lm_eval's."""

from __future__ import annotations

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
    names_of,
    open_store,
    parse_sizes,
    selectors_of,
    without_undefined,
)
from lm_eval_eglr.reports.baseline_runs import temperature_run
from lm_eval_eglr.reports.equal_budget import EqualBudget
from lm_eval_eglr.reports.harness_results import read_results
from lm_eval_eglr.reports.leaderboard import leaderboard, records
from lm_eval_eglr.reports.leaderboard_table import leaderboard_table
from lm_eval_eglr.reports.selector_rows import StrategyRow, strategy_row
from lm_eval_eglr.reports.tables import TEXT_FORMATS, csv_of, print_rich, render
from lm_eval_eglr.store import Document, Store

FORMATS = ("rich", *TEXT_FORMATS, "json")


def compare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help="Rollout stores, results JSON of plain lm_eval, or folders of either.",
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
    _check_found(rows, wanted, read, names if selector is not None else None)
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
        strategies: Every row that a results file has.
    """

    name: str
    rows: list[StrategyRow]
    store: Store | None
    documents: dict[str, list[Document]]
    strategies: list[str]


def _read(path: Path, name: str, names: list[str], wanted: list[str] | None, named: bool) -> Read:
    if path.is_file():
        return _read_file(path, name, names if named else None, wanted)
    store = open_store(path)
    tasks = [task for task in store.tasks if wanted is None or task in wanted]
    tables = {task: store.documents(task) for task in tasks}
    pairs = [(task, strategy) for task in tasks for strategy in names]
    rows = [
        strategy_row(store.manifest.model, task, tables[task], strategy, store=name)
        for task, strategy in progress(pairs, f"Selecting from {path.name}")
    ]
    return Read(name, rows, store, tables, names)


def _read_file(path: Path, name: str, names: list[str] | None, wanted: list[str] | None) -> Read:
    """Rows of a results file. ``--selector`` chooses among ours; rows of plain lm_eval know no selectors."""
    results = read_results(path)
    if wanted is not None:
        rows = [row for row in results.rows if row.task in wanted]
    else:
        if results.left_out:
            log(f"{path}: without {', '.join(results.left_out)}, which have no metric of correctness")
        rows = [row for row in results.rows if row.task not in results.groups] or results.rows
    there = list(dict.fromkeys(row.strategy for row in rows))
    known = {*available_selectors(), *COUNTED}
    ours = {row for row in there if row.partition("(")[0].partition("@")[0] in known}
    if names is not None and ours:
        rows = [row for row in rows if row.strategy in names or row.strategy not in ours]
        if not rows:
            log(f"{path}: has no row {', '.join(names)}; it has {', '.join(there)}")
    return Read(name, [replace(row, store=name) for row in rows], None, {}, there)


def _check_found(
    rows: Sequence[StrategyRow], wanted: list[str] | None, read: Sequence[Read], names: list[str] | None
) -> None:
    found = {row.task for row in rows}
    for name in wanted or ():
        if name not in found:
            raise ValueError(f"task={name!r}: none of the sources has it")
    if not rows:
        there = dict.fromkeys(name for each in read for name in each.strategies)
        raise ValueError(f"selector={','.join(names or ())!r}: the sources have {', '.join(there)}")


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
