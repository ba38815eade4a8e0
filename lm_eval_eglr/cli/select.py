"""``eglr select``, ``selectors``, ``verifiers``: strategies over stored rollouts, without a model."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from eglr_selectors import SelectorInfo, available_selectors
from eglr_selectors.factories import REQUIRED
from eglr_selectors.metrics import POOL_METRICS
from eglr_selectors.verifiers import available_verifiers

from lm_eval_eglr.cli.output import console_width, log, print_json, progress
from lm_eval_eglr.cli.sources import (
    find_stores,
    names_of,
    open_store,
    parse_numbers,
    parse_sizes,
    selectors_of,
    tasks_of,
    without_undefined,
)
from lm_eval_eglr.reports.baseline_runs import depth_axis
from lm_eval_eglr.reports.escaping import for_terminal
from lm_eval_eglr.reports.leaderboard import HIDDEN, leaderboard, percent
from lm_eval_eglr.reports.leaderboard_table import leaderboard_table
from lm_eval_eglr.reports.selector_rows import StrategyRow, mean, pool_shares, restrict, strategy_row
from lm_eval_eglr.reports.tables import Table, Text, print_rich
from lm_eval_eglr.store import Document

Stores = Annotated[
    list[Path],
    typer.Argument(metavar="STORE", help="Folders given as rollouts=DIR, or folders of such stores."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; undefined numbers are null.")]
SelectorOption = Annotated[
    str | None,
    typer.Option(
        "--selector",
        metavar="NAME[,NAME]",
        help="Selectors with their options, such as 'majority,entropy_weighted(beta=2)', and figures such as "
        "pass@4, maj@16, best_of_n@8. [default: all that need no options]",
    ),
]
SizesOption = Annotated[
    str | None,
    typer.Option(
        "--k",
        metavar="K[,K]",
        help="Mean over all subsets of K rollouts, instead of whole pools. "
        "Without --selector: pass@k and maj@k.",
    ),
]
TaskOption = Annotated[str | None, typer.Option("--task", help="Only this task. [default: all]")]


def select(
    stores: Stores,
    selector: SelectorOption = None,
    k: SizesOption = None,
    spans: Annotated[str | None, typer.Option(help="Only these spans of the grid, such as 0:2.")] = None,
    recurrences: Annotated[
        str | None, typer.Option(help="Only these recurrences of the grid, such as 4:8.")
    ] = None,
    temperatures: Annotated[str | None, typer.Option(help="Only these temperatures, such as 0:0.7.")] = None,
    task: TaskOption = None,
    json: Json = False,
) -> None:
    """Select from stored pools and score: the live run's numbers, to the last digit, without a model.

    Exits with 0 when all was scored, 1 when a store is damaged, 2 when an option is wrong.
    """
    names = selectors_of(selector, parse_sizes(k))
    if spans is not None and recurrences is not None:
        raise ValueError(f"recurrences={recurrences!r}: spans={spans!r} are given too; a grid has one axis")
    name_of_levels, levels = ("spans", spans) if recurrences is None else ("recurrences", recurrences)
    chosen_depths, chosen_temperatures = (
        parse_numbers(name_of_levels, levels),
        parse_numbers("temperatures", temperatures),
    )
    rows: list[StrategyRow] = []
    shares: list[dict[str, Any]] = []
    sources = names_of(find_stores(stores))
    for folder, source in sources.items():
        store = open_store(folder)
        for name in tasks_of(store, task):
            documents = store.documents(name)
            if chosen_depths is not None:
                axis = depth_axis([document.parsed for document in documents])
                if axis.levels != name_of_levels:
                    raise ValueError(
                        f"{name_of_levels}={levels!r}: the depth axis of {folder} is {axis.levels}; "
                        f"use --{axis.levels}"
                    )
            if chosen_depths is not None or chosen_temperatures is not None:
                documents = restrict(documents, chosen_depths, chosen_temperatures)
            model = store.manifest.model
            for strategy in progress(names, f"Selecting on {name}"):
                rows.append(strategy_row(model, name, documents, strategy, store=source))
            shares.append({"store": source, "model": model, "task": name, **_shares(documents)})
    if json:
        if any("cost_vs_plain" in each for each in shares):
            log("cost_vs_plain is the former measure, which shared nothing; read cost_vs_shared_plain")
        shown = [{name: value for name, value in asdict(row).items() if name not in HIDDEN} for row in rows]
        print_json({"strategies": shown, "pools": shares})
        return
    print_rich(leaderboard_table(leaderboard(without_undefined(rows, selector))))
    print()
    print_rich(_pools_table(shares))


def selectors(json: Json = False) -> None:
    """List the registered selectors with their options and where they come from."""
    _print_infos("selector", available_selectors(), json)


def verifiers(json: Json = False) -> None:
    """List the registered verifiers, which score rollouts for best_of_n and weighted_vote."""
    _print_infos("verifier", available_verifiers(), json)


def _print_infos(kind: str, infos: Mapping[str, SelectorInfo], json: bool) -> None:
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
    width = min(console_width(), 100)
    for info in infos.values():
        options = ", ".join(_option(key, value) for key, value in info.options.items())
        print(for_terminal(f"{info.name}({options})" if options else info.name))
        origin = "" if info.origin.startswith("eglr_selectors.") else f" From {info.origin}."
        oracle = " Looks at the reference: a ceiling." if info.uses_reference else ""
        text = for_terminal(info.description + oracle + origin)
        print(textwrap.fill(text, width, initial_indent="    ", subsequent_indent="    "))


def _option(key: str, value: Any) -> str:
    return key if value is REQUIRED else f"{key}={value!r}"


def _shares(documents: Sequence[Document]) -> dict[str, float]:
    """The measures of whole pools, with the former cost for who still reads it."""
    found = pool_shares(documents)
    costs = [each.parsed.pool.cost for each in documents]
    former = [cost.flops / cost.plain_flops for cost in costs if cost is not None and cost.plain_flops]
    return found | ({"cost_vs_plain": mean(former)} if former else {})


def _pools_table(shares: Sequence[Mapping[str, Any]]) -> Table:
    labels = [name for name in ("model", "task") if len({each[name] for each in shares}) > 1]
    names = [name for name in POOL_METRICS if any(name in each for each in shares)]
    cells = tuple(
        (
            *(Text(str(each[name])) for name in ("store", *labels)),
            *(Text(_measure(name, each.get(name, math.nan))) for name in names),
        )
        for each in shares
    )
    notes = ["% of all rollouts"]
    if "ties" in names:
        notes[0] += "; ties: % of tokens whose choice depends on rounding"
    if "cost_vs_shared_plain" in names:
        notes.append("cost_vs_shared_plain: FLOPs over plain samples that share as many prefixes")
    # A measure's name is the widest thing here, and what it measures is not the first thing to know.
    optional = tuple(1 + len(labels) + names.index(name) for name in ("ties",) if name in names)
    return Table(("pools", *labels, *names), cells, 1 + len(labels), tuple(notes), optional=optional)


def _measure(name: str, value: float) -> str:
    if name == "cost_vs_shared_plain":
        return "–" if math.isnan(value) else f"{value:.2f}"
    return f"{100 * value:.3f}" if name == "ties" and not math.isnan(value) else percent(value)
