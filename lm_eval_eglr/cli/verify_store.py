"""``eglr verify-store``: whether every byte of a store is what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lm_eval_eglr.cli.output import print_json, progress, say
from lm_eval_eglr.reports.untrusted import for_terminal
from lm_eval_eglr.store import Manifest, StoreError
from lm_eval_eglr.store.folder import DAMAGED, POOLS, PoolPath, pool_paths
from lm_eval_eglr.store.plan import read_plans
from lm_eval_eglr.store.pool_file import decode
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
    manifest = _checked(problems, lambda: Manifest.read(folder)) or Manifest()
    paths: list[PoolPath] = _checked(problems, lambda: list(pool_paths(folder))) or []
    planned = _checked(problems, lambda: read_plans(folder)) or set()
    _checked(problems, lambda: read_vocabulary(folder))
    places, rollouts, tokens, flops = set(), 0, 0, 0.0
    for path in progress(paths, f"Checking {folder.name}"):
        found = _checked(problems, lambda path=path: decode(path.path))
        if found is not None:
            head, pool = found
            places.add(head.place)
            rollouts += len(pool)
            tokens += sum(len(rollout.tokens) for rollout in pool)
            flops += pool.cost.flops if pool.cost else 0.0
    report: dict[str, Any] = {
        "store": str(folder),
        "fingerprint": manifest.fingerprint,
        "versions": manifest.versions,
        "tasks": sorted({task for task, _, _ in places}),
        "pools": len(places),
        "rollouts": rollouts,
        "tokens": tokens,
        "flops": flops,
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
        f"{report['pools']} pools, {report['missing']} missing; {report['rollouts']} rollouts, "
        f"{report['tokens']} tokens, {report['flops']:.3g} FLOPs"
    )
    print(for_terminal(line))
    if report["missing"]:
        say("the same lm_eval command makes what is missing")
    if report["problems"]:
        say("the same lm_eval command sets damaged pools aside and makes them again")
