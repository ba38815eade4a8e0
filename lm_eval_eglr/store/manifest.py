"""The manifest: which run a store belongs to, what its pools have cost, and which pools were planned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lm_eval_eglr.store.atomic_files import (
    StoreError,
    canonical,
    read_checked,
    with_checksum,
    write_atomically,
)
from lm_eval_eglr.store.pool_key import Place
from lm_eval_eglr.store.totals import Totals

FORMAT = "eglr-rollouts"
VERSION = 1
NAME = "manifest.json"
PLANS = "plan.*.json"  # one of each process, so that a reader can tell a part from the whole


@dataclass(frozen=True, slots=True)
class Manifest:
    """What decides a store's rollouts, and what they were made with.

    Attributes:
        fingerprint: Model, revision, dtype, grid, recursion, sampling, seed: what decides the rollouts
            of a request. Pools of two fingerprints never share a store.
        versions: Versions of the software that began the store; they are shown, not compared.
        totals: Cost of the pools that were there when a run last ended in order; ``None`` before that.
    """

    fingerprint: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    totals: Totals | None = None

    @property
    def model(self) -> str:
        """The model's name, as the run was given it."""
        return str(self.fingerprint.get("model", "unknown model"))

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Names the fingerprint's keys that differ, with this value and the other one."""
        keys = sorted({*self.fingerprint, *other})
        return [
            f"{key} is {canonical(self.fingerprint.get(key))} there and {canonical(other.get(key))} here"
            for key in keys
            if canonical(self.fingerprint.get(key)) != canonical(other.get(key))
        ]

    def write(self, folder: Path, scratch: str) -> None:
        """Writes the manifest, at once or not at all."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        write_atomically(folder / NAME, with_checksum(content), folder / scratch)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads a store's manifest.

        Raises:
            StoreError: If there is none, it is damaged, or of a version that this one does not know.
        """
        if not folder.exists():
            raise StoreError(f"{folder}: there is no such folder")
        if not (folder / NAME).is_file():
            raise StoreError(f"{folder}: not a rollout store, it has no {NAME}")
        content = read_checked(folder / NAME)
        if content.get("format") != FORMAT:
            raise StoreError(f"{folder / NAME}: format={content.get('format')!r}: expected {FORMAT!r}")
        if content.get("version") != VERSION:
            raise StoreError(f"{folder}: version={content.get('version')!r}: expected {VERSION}")
        fingerprint, versions, totals = (content.get(key) for key in ("fingerprint", "versions", "totals"))
        if not isinstance(fingerprint, dict) or not isinstance(versions, dict):
            raise StoreError(f"{folder / NAME}: expected a fingerprint and versions")
        return cls(fingerprint, versions, None if totals is None else Totals.from_json(totals))


def write_plan(folder: Path, rank: int, places: Iterable[Place], scratch: str) -> None:
    """Adds places to what this process has planned before."""
    path = folder / PLANS.replace("*", str(rank))
    known = set(_read_plan(path)) if path.is_file() else set()
    wanted = known | set(places)
    if wanted != known:
        by_task: dict[str, list[list[int]]] = {}
        for task, doc_id, repeat in sorted(wanted):
            by_task.setdefault(task, []).append([doc_id, repeat])
        write_atomically(path, with_checksum({"pools": by_task}), folder / scratch)


def read_plans(folder: Path) -> set[Place]:
    """Returns all places that any process has planned.

    Raises:
        StoreError: If a plan is damaged.
    """
    return {place for path in sorted(folder.glob(PLANS)) for place in _read_plan(path)}


def _read_plan(path: Path) -> list[Place]:
    pools: Any = read_checked(path).get("pools")
    try:
        return [
            (task, int(doc_id), int(repeat)) for task, entries in pools.items() for doc_id, repeat in entries
        ]
    except (AttributeError, TypeError, ValueError):
        raise StoreError(f"{path}: not a plan of a rollout store") from None
