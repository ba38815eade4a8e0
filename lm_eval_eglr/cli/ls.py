"""``eglr ls``: the stores below a folder, how far they are, and what they cost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from lm_eval_eglr.cli.output import log, print_json
from lm_eval_eglr.cli.select import Json
from lm_eval_eglr.cli.sources import find_sources, foreign_format
from lm_eval_eglr.importing import open_rollouts
from lm_eval_eglr.reports.leaderboard_table import flops_unit, significant
from lm_eval_eglr.reports.tables import Table, Text, print_rich
from lm_eval_eglr.store import Manifest
from lm_eval_eglr.store.folder import pool_paths
from lm_eval_eglr.store.manifest import read_plans
from lm_eval_eglr.store.totals import names_digest, totals_of


def ls(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DIR",
            help="Stores, folders of stores, or what other tools wrote, such as lm_eval's output folder. "
            "[default: this folder]",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List stores: model, tasks, pools done and missing, and what they cost.

    Exits with 0, with 1 when a store is damaged or rollouts cannot be read; the others are listed all the
    same.
    """
    found, damaged = [], []
    for folder in folders or [Path()]:
        try:
            sources = find_sources([folder])
        except ValueError as error:
            damaged.append(str(error))
            continue
        for source in sources:
            try:
                found.append(describe(source))
            except ValueError as error:
                damaged.append(str(error))
    if json:
        print_json({"stores": found, "problems": damaged})
    elif found:
        print_rich(_table(found, None if folders and len(folders) > 1 else (folders or [Path()])[0]))
    for problem in damaged:
        log(f"eglr: {problem}")
    if damaged:
        raise typer.Exit(1)


def describe(folder: Path) -> dict[str, Any]:
    """Says what a store holds, by the names of its files and its manifest.

    The pools themselves are read only where the manifest has no sums of them, and of other tools' rollouts,
    which have no manifest.

    Raises:
        StoreError: If it is no store, or its manifest, a plan or a file's name is damaged.
        ValueError: If rollouts of another tool cannot be read.
    """
    if foreign_format(folder) is not None:
        return _describe_source(folder)
    manifest = Manifest.read(folder)
    paths = list(pool_paths(folder))
    planned = Counter(task for task, _, _ in read_plans(folder).places)
    totals = manifest.totals
    if totals is None or totals.of != names_digest(entry.name for entry in paths):
        totals = totals_of(paths)
    done = len(paths)
    return {
        "store": str(folder),
        "model": manifest.model,
        "tasks": sorted(planned) or sorted({entry.place[0] for entry in paths}),
        "done": done,
        "missing": max(0, sum(planned.values()) - done),
        "rollouts": totals.rollouts,
        "tokens": totals.generated_tokens,
        "flops": totals.cost.flops if totals.without_cost < done else None,
    }


def _describe_source(path: Path) -> dict[str, Any]:
    """What other tools' rollouts are, in the words of a store; no tool says what they cost."""
    source = open_rollouts([path])
    for note in source.notes:
        log(note)
    counts = source.pools.counts
    return {
        "store": str(path),
        "model": source.model,
        "tasks": sorted(counts.tasks),
        "done": counts.pools,
        "missing": 0,
        "rollouts": counts.rollouts,
        "tokens": counts.tokens or None,
        "flops": None,
    }


def _table(stores: list[dict[str, Any]], below: Path | None) -> Table:
    def name(store: str) -> str:
        return store if below is None or Path(store) == below else str(Path(store).relative_to(below))

    scale, unit = flops_unit([each["flops"] or 0.0 for each in stores])
    rows = tuple(
        (
            Text(name(each["store"])),
            Text(each["model"] or "–"),
            Text(", ".join(each["tasks"])),
            Text(str(each["done"])),
            Text(str(each["missing"]), bold=each["missing"] > 0),
            Text(str(each["rollouts"])),
            Text("–" if each["tokens"] is None else str(each["tokens"])),
            Text("–" if each["flops"] is None else significant(each["flops"] / scale)),
        )
        for each in stores
    )
    header = ("store", "model", "tasks", "done", "missing", "rollouts", "tokens", unit)
    return Table(header, rows, 3, title="" if below is None else str(below), optional=(6, 5, 7))
