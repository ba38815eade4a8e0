"""``eglr select`` and ``eglr selectors``: strategies over stored rollouts, without a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from eglr_selectors import available_selectors
from eglr_selectors.factories import REQUIRED
from eglr_selectors.metrics import POOL_METRICS

from lm_eval_eglr.cli.output import print_json, progress
from lm_eval_eglr.cli.sources import open_store, parse_numbers, selectors_of, tasks_of
from lm_eval_eglr.reports.selector_rows import StrategyRow, pool_shares, restrict, strategy_row
from lm_eval_eglr.reports.tables import Table, Text, print_rich

Stores = Annotated[list[Path], typer.Argument(metavar="STORE...", help="Folders given as rollouts=DIR.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; undefined numbers are null.")]
SelectorOption = Annotated[
    str | None,
    typer.Option(
        "--selector",
        metavar="NAME[,NAME]",
        help="Selectors with their options, such as 'majority,entropy_weighted(beta=2)'. "
        "[default: all that need no options]",
    ),
]
TaskOption = Annotated[str | None, typer.Option("--task", help="Only this task. [default: all]")]


def select(
    stores: Stores,
    selector: SelectorOption = None,
    k: Annotated[
        int | None, typer.Option("--k", help="Mean over all subsets of k rollouts, instead of whole pools.")
    ] = None,
    spans: Annotated[str | None, typer.Option(help="Only these spans of the grid, such as 0:2.")] = None,
    temperatures: Annotated[str | None, typer.Option(help="Only these temperatures, such as 0:0.7.")] = None,
    task: TaskOption = None,
    json: Json = False,
) -> None:
    """Select from stored pools and score: the live run's numbers, to the last digit, without a model.

    Exits with 0 when all was scored, 1 when a store is damaged, 2 when an option is wrong.
    """
    names = selectors_of(selector)
    chosen_spans, chosen_temperatures = (
        parse_numbers("spans", spans),
        parse_numbers("temperatures", temperatures),
    )
    rows: list[StrategyRow] = []
    shares: list[dict[str, Any]] = []
    for folder in stores:
        store = open_store(folder)
        for name in tasks_of(store, task):
            documents = store.documents(name)
            if chosen_spans is not None or chosen_temperatures is not None:
                kept_spans = None if chosen_spans is None else [int(span) for span in chosen_spans]
                documents = restrict(documents, kept_spans, chosen_temperatures)
            model = store.manifest.model
            for strategy in progress(names, f"Selecting on {name}"):
                rows.append(strategy_row(model, name, documents, strategy, k))
            shares.append({"model": model, "task": name, **pool_shares(documents)})
    if json:
        shown = [{name: value for name, value in asdict(row).items() if name != "identities"} for row in rows]
        print_json({"strategies": shown, "pools": shares})
        return
    print_rich(strategies_table(rows))
    print_rich(_pools_table(shares))


def selectors(json: Json = False) -> None:
    """List the registered selectors with their options and where they come from."""
    infos = available_selectors()
    if json:
        print_json(
            [
                {
                    "name": info.name,
                    "options": {
                        key: None if value is REQUIRED else value for key, value in info.options.items()
                    },
                    "required": [key for key, value in info.options.items() if value is REQUIRED],
                    "uses_reference": info.uses_reference,
                    "description": info.description,
                    "origin": info.origin,
                }
                for info in infos.values()
            ]
        )
        return
    rows = tuple(
        (
            Text(info.name),
            Text(", ".join(_option(key, value) for key, value in info.options.items())),
            Text("reference" if info.uses_reference else ""),
            Text(info.description),
            Text(info.origin),
        )
        for info in infos.values()
    )
    print_rich(Table(("selector", "options", "uses", "what it does", "origin"), rows, labels=5))


def _option(key: str, value: Any) -> str:
    return f"{key} (required)" if value is REQUIRED else f"{key}={value!r}"


def strategies_table(rows: Sequence[StrategyRow]) -> Table:
    """Returns a row per strategy with standard error, interval and cost; model and task where they differ."""
    several = len({(row.model, row.task) for row in rows}) > 1
    header = (
        "strategy",
        "exact_match",
        "stderr",
        "95 % interval",
        "undefined",
        "rollouts",
        "tokens",
        "FLOPs",
    )
    cells = tuple(
        (
            *((Text(row.model), Text(row.task)) if several else ()),
            Text(f"{row.strategy} (uses reference)" if row.uses_reference else row.strategy),
            Text(_four(row.value)),
            Text(_four(row.stderr)),
            Text("–" if math.isnan(row.low) else f"{_four(row.low)}..{_four(row.high)}"),
            Text(f"{row.undefined} of {row.problems}"),
            Text(_plain(row.rollouts)),
            Text(_plain(row.tokens)),
            Text("–" if math.isnan(row.flops) else f"{row.flops:.3g}"),
        )
        for row in rows
    )
    return Table(("model", "task", *header) if several else header, cells, labels=3 if several else 1)


def _pools_table(shares: Sequence[dict[str, Any]]) -> Table:
    names = POOL_METRICS
    cells = tuple(
        (
            Text(str(each["model"])),
            Text(str(each["task"])),
            *(Text(_four(each.get(name, math.nan))) for name in names),
        )
        for each in shares
    )
    return Table(("model", "task", *names), cells, labels=2, notes=("shares of all rollouts in the pools",))


def _four(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _plain(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"
