"""Writing a store: one process at a time per shard, resuming where a run before it stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import NoReturn

from eglr_selectors import RolloutPool
from filelock import FileLock, Timeout

from lm_eval_eglr.store.atomic_files import StoreError, read_bytes, sync_folder, write_atomically
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
from lm_eval_eglr.store.totals import Counts, counts_of, names_digest, totals_of
from lm_eval_eglr.store.vocabulary import write_vocabulary

logger = logging.getLogger(__name__)

# Another process of the run may hold our lock for a moment, to drop what a killed run left under our rank.
LOCK_SECONDS = 2.0
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
        unknown: Columns in which no pool of the store has a value; its files are made without them.

    Raises:
        StoreError: If the folder cannot be written, is no store, or another run is writing to it.
    """

    def __init__(self, folder: Path, rank: int = 0, unknown: Set[str] = frozenset()) -> None:
        self.folder = folder
        self.rank = rank
        self._unknown = unknown
        self._known: dict[tuple[str, int, int], PoolPath] = {}
        self._rounds: dict[tuple[tuple[str, int, int], str], PoolPath] = {}
        # Of the pools that this process has written or read, so that it need not read them to sum up.
        self._counts: dict[str, Counts] = {}
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
                # Asked first: another process of this run may be writing both, the manifest before any pool.
                has_pools = next(pool_paths(self.folder), None) is not None
                if (self.folder / NAME).is_file():
                    self._refuse_other(manifest)
                elif has_pools:
                    self._refuse_unnamed()
                else:
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
        places = set()
        for head in heads:
            self._entry(head)
            places.add(head.place)
        with self._guarded():
            planned = Plan(frozenset(places))
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
        folder = self.folder / ROUNDS
        self._write(head, pool, folder)
        with self._guarded():
            sync_folder(folder)

    def holds(self, head: PoolKey, pool: RolloutPool) -> bool:
        """Whether an earlier run has written this very pool; a damaged one is set aside.

        Raises:
            StoreError: If the store has another pool in its place.
        """
        entry = self._entry(head)
        if entry is None:
            return False
        name, data = encode(head, pool, self._unknown)
        if entry.name == name and self._is_there(entry, data):
            self._counts[name] = counts_of(pool)
            return True
        there = self._decoded(entry, head)  # perhaps as another version writes it
        if there is None:
            return False
        if encode(head, there) != encode(head, pool):
            raise StoreError(
                f"{self.folder}: document {head.doc_id} of {head.task} is there with other rollouts; "
                "name another folder"
            )
        return True

    def _is_there(self, entry: PoolPath, data: bytes) -> bool:
        try:
            return read_bytes(entry.path) == data
        except StoreError:
            return False  # reading it as a pool says what is wrong

    def append(self, head: PoolKey, pool: RolloutPool) -> None:
        """Adds a pool; when this returns, it is on the disk.

        Raises:
            StoreError: If it cannot be written; what was written before stays good.
        """
        self.append_all([(head, pool)])

    def append_all(self, pools: Iterable[tuple[PoolKey, RolloutPool]]) -> int:
        """Adds pools one by one; when this returns, all are on the disk.

        Each is there completely or not at all, at any moment. What is done once for all of them is to sync
        the folder, which takes as long as to write one.

        Returns:
            How many there were.

        Raises:
            StoreError: If one cannot be written; what was written before stays good.
        """
        folder = self.folder / POOLS
        count = 0
        try:
            for head, pool in pools:
                entry = PoolPath.of(folder, self._write(head, pool, folder))
                assert entry is not None
                self._known[entry.place] = entry
                self._counts[entry.name] = counts_of(pool)
                count += 1
        finally:
            if count:
                with self._guarded():
                    sync_folder(folder)
        return count

    def _write(self, head: PoolKey, pool: RolloutPool, folder: Path) -> str:
        """Writes a pool's file and returns its name; to sync the folder is left to the caller."""
        whose = f"rollouts={str(self.folder)!r}: document {head.doc_id} of {head.task}"
        self._manifest.refuse_other_axis(pool, whose)
        name, data = encode(head, pool, self._unknown)
        with self._guarded():
            folder.mkdir(exist_ok=True)
            write_atomically(folder / name, data, folder / self._scratch, sync_rename=False)
        return name

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
            head, pool = decode(entry.path)
            self._counts[entry.name] = counts_of(pool)
            return head, pool
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
                entries = list(pool_paths(self.folder))
                known = None if manifest.totals is None else manifest.totals.of
                if known != names_digest(entry.name for entry in entries):
                    updated = dataclasses.replace(manifest, totals=totals_of(entries, self._counts))
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

    def _refuse_unnamed(self) -> NoReturn:
        """Pools name their documents and not their model, which stands in the manifest alone."""
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
                    with self._locked(int(rank), seconds=0.0):
                        self._drop(part)

    def _drop(self, part: Path) -> None:
        part.unlink(missing_ok=True)
        logger.warning("%s: dropped a record that a killed run had not finished", part)

    @contextlib.contextmanager
    def _locked(self, rank: int, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        try:
            with FileLock(self.folder / f".rank{rank}.lock", timeout=seconds):
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
