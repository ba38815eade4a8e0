"""The manifest: which run a store belongs to, what its pools have cost, and which pools were planned."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eglr_selectors import RolloutPool

from lm_eval_eglr.store.atomic_files import (
    StoreError,
    canonical,
    read_checked,
    with_checksum,
    write_atomically,
)
from lm_eval_eglr.store.folder import set_aside
from lm_eval_eglr.store.pool_key import Place
from lm_eval_eglr.store.pool_schema import AXIS
from lm_eval_eglr.store.totals import Totals

FORMAT = "eglr-rollouts"
VERSION = 1
RECURRENT_VERSION = 2
"""Of stores of axis R. Earlier readers know no axis and would take recurrences for spans; they refuse it."""
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
    def axis(self) -> str:
        """The depth axis of its rollouts: the fingerprint of recurrences says ``R``, of spans nothing."""
        return str(self.fingerprint.get(AXIS, "L"))

    @property
    def version(self) -> int:
        """The version of the format that its store has."""
        return VERSION if self.axis == "L" else RECURRENT_VERSION

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
        totals = None if self.totals is None else self.totals.to_json()
        content = {
            "format": FORMAT,
            "version": self.version,
            "fingerprint": self.fingerprint,
            "versions": self.versions,
            "totals": totals,
        }
        write_atomically(folder / NAME, with_checksum(content), folder / scratch)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads a store's manifest.

        Raises:
            StoreError: If there is none, it is damaged, or of a version that this one does not know.
        """
        try:
            if not folder.exists():
                raise StoreError(f"{folder}: there is no such folder")
            if not (folder / NAME).exists():
                raise StoreError(f"{folder}: not a rollout store, it has no {NAME}")
        except OSError as error:
            raise StoreError(f"{folder}: cannot be read ({error.strerror})") from error
        content = read_checked(folder / NAME)
        if content.get("format") != FORMAT:
            raise StoreError(f"{folder / NAME}: format={content.get('format')!r}: expected {FORMAT!r}")
        if content.get("version") not in (VERSION, RECURRENT_VERSION):
            raise StoreError(
                f"{folder}: version={content.get('version')!r}: expected {VERSION}, or {RECURRENT_VERSION} "
                "of recurrences"
            )
        fingerprint, versions, totals = (content.get(key) for key in ("fingerprint", "versions", "totals"))
        if not isinstance(fingerprint, dict) or not isinstance(versions, dict):
            raise StoreError(f"{folder / NAME}: expected a fingerprint and versions")
        try:
            read = cls(fingerprint, versions, None if totals is None else Totals.from_json(totals))
        except ValueError as error:
            raise StoreError(f"{folder / NAME}: totals: {error}") from None
        if read.axis not in ("L", "R") or read.version != content["version"]:
            raise StoreError(
                f"{folder / NAME}: axis={read.axis!r} in version {content['version']}: expected R in version "
                f"{RECURRENT_VERSION}, and none in version {VERSION}"
            )
        return read

    def refuse_other_axis(self, pool: RolloutPool, where: str) -> None:
        """Refuses a pool that is not on the store's depth axis.

        Raises:
            StoreError: If it is on the other one.
        """
        if pool.axis.symbol != self.axis:
            raise StoreError(
                f"{where}: a pool on depth axis {pool.axis.symbol} in a store of axis {self.axis}; spans and "
                "recurrences have stores of their own"
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """What a process, or all of them, set out to make.

    Attributes:
        places: Of the pools.
        vocabulary: Whether the text of every token id goes with them.
    """

    places: frozenset[Place] = frozenset()
    vocabulary: bool = False

    def __or__(self, other: Plan) -> Plan:
        """What either set out to make."""
        return Plan(self.places | other.places, self.vocabulary or other.vocabulary)

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Reads a plan's file.

        Raises:
            StoreError: If it is damaged.
        """
        content = read_checked(path)
        pools: Any = content.get("pools")
        try:
            places = frozenset(
                (task, doc_id, repeat) for task, entries in pools.items() for doc_id, repeat in entries
            )
        except (AttributeError, TypeError, ValueError):
            raise StoreError(f"{path}: not a plan of a rollout store") from None
        for task, *numbers in places:
            if any(type(number) is not int or number < 0 for number in numbers):
                raise StoreError(f"{path}: {task}: {numbers}: expected integers >= 0") from None
        return cls(places, content.get("vocabulary") is True)

    def write(self, path: Path, scratch: str) -> None:
        """Writes the plan, at once or not at all."""
        by_task: dict[str, list[list[int]]] = {}
        for task, doc_id, repeat in sorted(self.places):
            by_task.setdefault(task, []).append([doc_id, repeat])
        content = {"pools": by_task, **({"vocabulary": True} if self.vocabulary else {})}
        write_atomically(path, with_checksum(content), path.with_name(scratch))


def add_to_plan(folder: Path, rank: int, more: Plan, scratch: str) -> None:
    """Adds to what this process has planned before; a damaged plan is set aside."""
    path = folder / PLANS.replace("*", str(rank))
    known = Plan()
    if path.is_file():
        try:
            known = Plan.read(path)
        except StoreError as error:
            set_aside(path, error, "made again")
    if (both := known | more) != known:
        both.write(path, scratch)


def read_plans(folder: Path) -> Plan:
    """Returns what all processes together have planned.

    Raises:
        StoreError: If a plan is damaged.
    """
    plans = [Plan.read(path) for path in sorted(folder.glob(PLANS))]
    return functools.reduce(Plan.__or__, plans, Plan())
