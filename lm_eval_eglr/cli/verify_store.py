"""``eglr verify-store``: whether every byte of a store is what was written."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lm_eval_eglr.cli.output import log, print_json, progress
from lm_eval_eglr.reports.escaping import for_terminal
from lm_eval_eglr.store import Manifest, StoreError
from lm_eval_eglr.store.folder import DAMAGED, POOLS, PoolPath, pool_paths
from lm_eval_eglr.store.manifest import NAME, read_plans
from lm_eval_eglr.store.pool_file import decode
from lm_eval_eglr.store.totals import totals_of
from lm_eval_eglr.store.vocabulary import read_vocabulary

INCOMPLETE = 3


def verify_store(
    folder: Annotated[Path, typer.Argument(metavar="STORE", help="Folder given as rollouts=DIR.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a store: every checksum, what is missing, what it holds and what it cost.

    Exits with 0 if it is whole, 1 if a file is damaged, 3 if it is sound but pools are missing.
    """
    problems: list[str] = []
    if not (folder / NAME).exists():
        Manifest.read(folder)  # says what there is instead of a store
    manifest = _checked(problems, lambda: Manifest.read(folder)) or Manifest()
    paths: list[PoolPath] = _checked(problems, lambda: list(pool_paths(folder))) or []
    planned = _checked(problems, lambda: read_plans(folder)) or set()
    _checked(problems, lambda: read_vocabulary(folder))
    places = set()
    ties: list[int] = []
    for path in progress(paths, f"Checking {folder.name}"):
        found = _checked(problems, lambda path=path: decode(path.path))
        if found is not None:
            places.add(found[0].place)
            ties += [] if (count := found[1].ties) is None else [count]
    # What is damaged has been named, and the sums of the rest would not be the store's.
    totals = None if problems else _checked(problems, lambda: totals_of(path.path for path in paths))
    current = totals is not None and manifest.totals is not None and manifest.totals.of == totals.of
    if current and manifest.totals != totals:
        problems.append(f"{folder / NAME}: its totals are not the sums of the pools that it names")
    report: dict[str, Any] = {
        "store": str(folder),
        "fingerprint": manifest.fingerprint,
        "versions": manifest.versions,
        "tasks": sorted({task for task, _, _ in places}),
        "pools": len(places),
        "rollouts": None if totals is None else totals.rollouts,
        "tokens": None if totals is None else totals.generated_tokens,
        "flops": None if totals is None else totals.cost.flops,
        "ties": sum(ties) if ties and totals is not None else None,
        "cost": None if totals is None else asdict(totals),
        "manifest_totals": "none" if manifest.totals is None else "current" if current else "earlier",
        "missing": len(planned - places),
        "set_aside": len(list((folder / POOLS).glob(f"{DAMAGED}*"))),
        "problems": problems,
    }
    if json:
        print_json(report)
    else:
        _print(report)
    if problems:
        raise typer.Exit(1)
    if report["missing"]:
        raise typer.Exit(INCOMPLETE)


def _checked(problems: list[str], read: Any) -> Any:
    try:
        return read()
    except StoreError as error:
        problems.append(str(error))
        return None


def _print(report: dict[str, Any]) -> None:
    for problem in report["problems"]:
        print(for_terminal(problem))
    state = "damaged" if report["problems"] else "incomplete" if report["missing"] else "whole"
    model = report["fingerprint"].get("model", "unknown model")
    line = (
        f"{report['store']}: {state}; {model}, {', '.join(report['tasks']) or 'no tasks'}; "
        f"{report['pools']} pools, {report['missing']} missing"
    )
    cost = report["cost"]
    if cost is not None:
        line += f"; {cost['rollouts']} rollouts, {cost['generated_tokens']} tokens, "
        line += f"{cost['cost']['flops']:.3g} FLOPs"
        if cost["without_cost"]:
            line += f" ({cost['without_cost']} pools of unknown cost not counted)"
    if report["ties"] is not None:
        line += f"; {report['ties']} tokens decided by rounding"
    print(for_terminal(line))
    if report["missing"]:
        log("the same lm_eval command makes what is missing")
    if report["problems"]:
        log("the same lm_eval command sets damaged pools aside and makes them again")
