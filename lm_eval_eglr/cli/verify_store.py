"""``eglr verify-store``: whether every byte of a store is what was written."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import typer
from eglr_selectors import RolloutPool

from lm_eval_eglr.cli.output import log, print_json, progress
from lm_eval_eglr.cli.sources import foreign_format
from lm_eval_eglr.reports.escaping import for_terminal
from lm_eval_eglr.store import Manifest, PoolKey, StoreError
from lm_eval_eglr.store.folder import pool_paths, round_paths, set_aside_files, stray_files
from lm_eval_eglr.store.manifest import NAME, Plan, read_plans
from lm_eval_eglr.store.pool_file import decode
from lm_eval_eglr.store.totals import Counts, counts_of, sum_up
from lm_eval_eglr.store.undecided import read_undecided
from lm_eval_eglr.store.vocabulary import read_vocabulary

INCOMPLETE = 3
Found = TypeVar("Found")


def verify_store(
    folder: Annotated[Path, typer.Argument(metavar="STORE", help="Folder given as rollouts=DIR.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a store: every checksum, what is missing, what it holds and what it cost.

    Exits with 0 if it is whole, 1 if a file is damaged, 3 if it is sound but something is missing.
    """
    if not (folder / NAME).exists():
        if (form := foreign_format(folder)) is not None:
            raise ValueError(
                f"{folder}: of the format {form}, which has no checksums to verify; `eglr import` makes a "
                "store of it"
            )
        Manifest.read(folder)  # says what there is instead of a store
    check = _Check()
    check.manifest = check(lambda: Manifest.read(folder))
    manifest = check.manifest or Manifest()
    plan = check(lambda: read_plans(folder)) or Plan()
    vocabulary = check(lambda: read_vocabulary(folder))
    check(lambda: read_undecided(folder))
    pools = check.pools([entry.path for entry in check(lambda: list(pool_paths(folder))) or []], folder.name)
    rounds = check.pools([entry.path for entry in check(lambda: round_paths(folder)) or []], "rounds")
    strays = check(lambda: stray_files(folder)) or []
    # What is damaged has been named, and the sums of the rest would not be the store's.
    totals = None if check.problems else sum_up({path.name: each.counts for path, each in pools.items()})
    current = totals is not None and manifest.totals is not None and manifest.totals.of == totals.of
    if current and manifest.totals != totals:
        check.problems.append(f"{folder / NAME}: its totals are not the sums of the pools that it names")
    places = {each.key.place for each in pools.values()}
    ties = [each.ties for each in pools.values() if each.ties is not None]
    report: dict[str, Any] = {
        "store": str(folder),
        "fingerprint": manifest.fingerprint,
        "versions": manifest.versions,
        "tasks": sorted({task for task, _, _ in places}),
        "pools": len(pools),
        "rounds": len(rounds),
        "rollouts": None if totals is None else totals.rollouts,
        "tokens": None if totals is None else totals.generated_tokens,
        "flops": None if totals is None else totals.cost.flops,
        "ties": sum(ties) if ties and totals is not None else None,
        "cost": None if totals is None else totals.to_json(),
        "manifest_totals": "none" if manifest.totals is None else "current" if current else "earlier",
        "missing": len(plan.places - places),
        "vocabulary": "damaged"
        if vocabulary is None
        else "there"
        if vocabulary
        else "missing"
        if plan.vocabulary
        else "none",
        "strays": [str(path) for path in strays],
        "set_aside": len(set_aside_files(folder)),
        "problems": check.problems,
    }
    if json:
        print_json(report)
    else:
        _print(report)
    if check.problems:
        raise typer.Exit(1)
    if _is_incomplete(report):
        raise typer.Exit(INCOMPLETE)


class _Pool(NamedTuple):
    """What is kept of a pool that was read: enough to sum it up without reading it again."""

    key: PoolKey
    ties: int | None
    counts: Counts


class _Check:
    """Collects what is wrong with a store instead of ending at the first fault."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.manifest: Manifest | None = None

    def __call__(self, read: Callable[[], Found]) -> Found | None:
        """What was read; ``None`` if it is damaged, which is noted."""
        try:
            return read()
        except StoreError as error:
            self.problems.append(str(error))
            return None

    def pools(self, paths: list[Path], what: str) -> dict[Path, _Pool]:
        """What is kept of each sound pool."""
        found = {}
        for path in progress(paths, f"Checking {what}"):
            pool: tuple[PoolKey, RolloutPool] | None = self(functools.partial(self._pool, path))
            if pool is not None:
                key, rollouts = pool
                found[path] = _Pool(key, rollouts.ties, counts_of(rollouts))
        return found

    def _pool(self, path: Path) -> tuple[PoolKey, RolloutPool]:
        key, pool = decode(path)
        if self.manifest is not None:
            self.manifest.refuse_other_axis(pool, str(path))
        return key, pool


def _is_incomplete(report: dict[str, Any]) -> bool:
    return bool(report["missing"]) or report["vocabulary"] == "missing"


def _print(report: dict[str, Any]) -> None:
    for problem in report["problems"]:
        print(for_terminal(problem))
    state = "damaged" if report["problems"] else "incomplete" if _is_incomplete(report) else "whole"
    model = report["fingerprint"].get("model") or "unknown model"
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
    if report["vocabulary"] == "missing":
        line += "; the vocabulary is missing, so pages cannot show tokens"
    print(for_terminal(line))
    for path in report["strays"]:
        log(f"{path}: not a file of a rollout store, left alone")
    if _is_incomplete(report):
        log("the same lm_eval command makes what is missing")
    if report["problems"]:
        log("the same lm_eval command sets damaged pools aside and makes them again")
