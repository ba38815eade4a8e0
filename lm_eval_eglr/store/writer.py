"""Writing a store: one process at a time per shard, resuming where a run before it stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from eglr_selectors import RolloutPool
from filelock import FileLock, Timeout

from lm_eval_eglr.store.atomic_files import StoreError, write_atomically
from lm_eval_eglr.store.folder import (
    POOLS,
    ROUNDS,
    PoolPath,
    place_of,
    pool_paths,
    round_paths,
    set_aside,
    warn_of_strays,
)
from lm_eval_eglr.store.manifest import NAME, Manifest, Plan, add_to_plan
from lm_eval_eglr.store.pool_file import decode, encode
from lm_eval_eglr.store.pool_key import PoolKey
from lm_eval_eglr.store.totals import names_digest, totals_of
from lm_eval_eglr.store.vocabulary import write_vocabulary

logger = logging.getLogger(__name__)

SUMMING = ".totals.lock"
SILENT_SECONDS = 2.0  # other processes of the run are done by then
SUMMING_SECONDS = 60.0


class StoreWriter:
    """A store as one process of a run writes to it.

    Each pool is a file of its own, written under a hidden name, synced and renamed, so that it is in
    the store completely or not at all, whenever the process or the machine dies.

    Args:
        folder: The store's folder; made if it is not there.
        rank: Number of this process among those of its run; each has its own lock.

    Raises:
        StoreError: If the folder cannot be written, is no store, or another run is writing to it.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        self.rank = rank
        self._known: dict[tuple[str, int, int], PoolPath] = {}
        self._rounds: dict[tuple[tuple[str, int, int], str], PoolPath] = {}
        self._began = False
        self._manifest = Manifest()
        with self._guarded():
            (folder / POOLS).mkdir(parents=True, exist_ok=True)
            with self._locked(rank):
                if (folder / NAME).is_file():
                    Manifest.read(folder)

    @contextlib.contextmanager
    def writing(self, manifest: Manifest) -> Iterator[StoreWriter]:
        """Holds the store for writing; the lock goes with the process, however that ends.

        Args:
            manifest: Of this run.

        Raises:
            StoreError: If another run holds it, or its rollouts have another fingerprint.
        """
        with self._locked(self.rank):
            with self._guarded():
                if (self.folder / NAME).is_file():
                    self._refuse_other(manifest)
                else:
                    self._refuse_unnamed()
                    manifest.write(self.folder, self._scratch)
                self._manifest = manifest
                self._began = True
                self._remove_partial_files()
            warn_of_strays(self.folder)
            self._known = {entry.place: entry for entry in pool_paths(self.folder)}
            self._rounds = {(entry.place, entry.identity): entry for entry in round_paths(self.folder)}
            try:
                yield self
            finally:
                self._update_totals()

    def plan(self, heads: Iterable[PoolKey]) -> None:
        """Notes which pools this run is to make.

        Raises:
            StoreError: If the store has a pool of the same document with other draws.
        """
        heads = list(heads)
        for head in heads:
            self._entry(head)
        with self._guarded():
            planned = Plan(frozenset(head.place for head in heads))
            add_to_plan(self.folder, self.rank, planned, self._scratch)

    def describe_tokens(self, pieces: Callable[[], Sequence[str]]) -> None:
        """Writes the text of every token id once per store; the first process does it."""
        if self.rank == 0:
            with self._guarded():
                add_to_plan(self.folder, self.rank, Plan(vocabulary=True), self._scratch)
                write_vocabulary(self.folder, pieces, self._scratch)

    def load(self, head: PoolKey) -> RolloutPool | None:
        """Returns the pool that an earlier run has made, if there is one; a damaged one is set aside.

        Raises:
            StoreError: If the store has a pool of the same document with other draws.
        """
        entry = self._entry(head)
        return None if entry is None else self._decoded(entry, head)

    def load_round(self, head: PoolKey) -> RolloutPool | None:
        """Returns the pool that an earlier run had after its first round, if it kept it."""
        entry = self._rounds.get((place_of(head), head.identity))
        return None if entry is None else self._decoded(entry, head)

    def append_round(self, head: PoolKey, pool: RolloutPool) -> None:
        """Keeps a pool that may get more rollouts; when this returns, it is on the disk."""
        self._write(head, pool, self.folder / ROUNDS)

    def append(self, head: PoolKey, pool: RolloutPool) -> None:
        """Adds a pool; when this returns, it is on the disk.

        Raises:
            StoreError: If it cannot be written; what was written before stays good.
        """
        entry = PoolPath.of(self._write(head, pool, self.folder / POOLS))
        assert entry is not None
        self._known[entry.place] = entry

    def _write(self, head: PoolKey, pool: RolloutPool, folder: Path) -> Path:
        whose = f"rollouts={str(self.folder)!r}: document {head.doc_id} of {head.task}"
        self._manifest.refuse_other_axis(pool, whose)
        name, data = encode(head, pool)
        with self._guarded():
            folder.mkdir(exist_ok=True)
            write_atomically(folder / name, data, folder / self._scratch)
        return folder / name

    def _entry(self, head: PoolKey) -> PoolPath | None:
        """The file of a pool that was made before.

        Raises:
            StoreError: If it is sound, and its name says that other draws decided it.
        """
        entry = self._known.get(place_of(head))
        if entry is not None and entry.identity != head.identity:
            found = self._read(entry)
            if found is None:
                return None
            self._refuse_document(found[0], head)
        return entry

    def _decoded(self, entry: PoolPath, head: PoolKey) -> RolloutPool | None:
        found = self._read(entry)
        if found is None:
            return None
        if found[0].identity != head.identity:  # task names that are cut to the same file name
            self._refuse_document(found[0], head)
        return found[1]

    def _read(self, entry: PoolPath) -> tuple[PoolKey, RolloutPool] | None:
        """Reads a pool; a damaged one is set aside, so that the run makes it again."""
        try:
            return decode(entry.path)
        except StoreError as error:
            with self._guarded():
                set_aside(entry.path, error)
            if self._known.get(entry.place) == entry:
                del self._known[entry.place]
            return None

    def _update_totals(self) -> None:
        """Writes what the store's pools have cost into its manifest, if it does not say so already.

        The processes of a run take turns, and each sums up what is there when its turn comes: whichever is
        last sees the pools of all. A run that is killed leaves older totals, which name what they are of.
        Totals can be had from the pools at any time, so failing to write them costs a run nothing.
        """
        try:
            Manifest.read(self.folder)  # taking the lock would make the folder of a removed store again
            with self._summing():
                manifest = Manifest.read(self.folder)
                paths = [entry.path for entry in pool_paths(self.folder)]
                known = None if manifest.totals is None else manifest.totals.of
                if known != names_digest(path.name for path in paths):
                    updated = dataclasses.replace(manifest, totals=totals_of(paths))
                    updated.write(self.folder, self._scratch)
        except (StoreError, OSError) as error:  # filelock's Timeout is one
            logger.warning("rollouts=%s: its totals could not be written (%s)", self.folder, error)

    @contextlib.contextmanager
    def _summing(self) -> Iterator[None]:
        lock = FileLock(self.folder / SUMMING)
        try:
            lock.acquire(timeout=SILENT_SECONDS)
        except Timeout:
            logger.warning(
                "rollouts=%s: another process holds %s; waiting up to %.0f s to sum up the store's cost",
                self.folder,
                SUMMING,
                SUMMING_SECONDS,
            )
            lock.acquire(timeout=SUMMING_SECONDS)
        try:
            yield
        finally:
            lock.release()

    def __len__(self) -> int:
        """Number of pools on the disk, also when an interrupt came between writing one and noting it."""
        return sum(1 for _ in pool_paths(self.folder))

    @property
    def _scratch(self) -> str:
        return f".{self.rank}.part"

    def _refuse_other(self, manifest: Manifest) -> None:
        differences = Manifest.read(self.folder).differences(manifest.fingerprint)
        if differences:
            raise StoreError(
                f"rollouts={str(self.folder)!r}: holds rollouts of another run ({'; '.join(differences)}); "
                "name another folder"
            )

    def _refuse_unnamed(self) -> None:
        """Pools name their documents and not their model, which stands in the manifest alone."""
        if next(pool_paths(self.folder), None) is not None:
            raise StoreError(
                f"rollouts={str(self.folder)!r}: holds pools but no {NAME}, so their model is not known; "
                "put the manifest back, or name another folder"
            )

    def _refuse_document(self, before: PoolKey, head: PoolKey) -> NoReturn:
        keys = sorted({*before.settings, *head.settings})
        differing = [key for key in keys if before.settings.get(key) != head.settings.get(key)]
        if before.document != head.document:
            differing.insert(0, "prompt")
        if before.task != head.task:
            differing.insert(0, "task")
        raise StoreError(
            f"rollouts={str(self.folder)!r}: document {head.doc_id} of {head.task} is there with another "
            f"{', '.join(differing)}; name another folder"
        )

    def _remove_partial_files(self) -> None:
        """Removes what killed processes were writing; the lock of a live one keeps its own."""
        folders = (self.folder, self.folder / POOLS, self.folder / ROUNDS)
        for part in [part for folder in folders for part in folder.glob(".*.part")]:
            rank = part.name.split(".")[1]
            with contextlib.suppress(StoreError):
                if rank == str(self.rank):
                    self._drop(part)
                elif rank.isdigit():
                    with self._locked(int(rank)):
                        self._drop(part)

    def _drop(self, part: Path) -> None:
        part.unlink(missing_ok=True)
        logger.warning("%s: dropped a record that a killed run had not finished", part)

    @contextlib.contextmanager
    def _locked(self, rank: int) -> Iterator[None]:
        try:
            with FileLock(self.folder / f".rank{rank}.lock", timeout=0):
                yield
        except Timeout:
            raise StoreError(
                f"rollouts={str(self.folder)!r}: another run is writing to it; wait for it, or name another"
            ) from None

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"cannot be written ({error.strerror or error}); {self._state()}"
            raise StoreError(f"rollouts={str(self.folder)!r}: {reason}") from error

    def _state(self) -> str:
        """What has become of the store that a write failed in."""
        with contextlib.suppress(OSError):
            if self._began and not (self.folder / NAME).exists():
                return f"its {NAME} is gone, and perhaps its pools with it: was the folder moved or removed?"
        return "what it holds is safe, and the same command continues once this is mended"
