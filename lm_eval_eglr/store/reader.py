"""Reading stores: all pools of all shards, checked, and parsed for selection."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eglr_selectors import ParsedPool, RolloutPool, parse_documents

from lm_eval_eglr.store.folder import PoolPath, pool_paths, warn_of_strays
from lm_eval_eglr.store.frame import frame_of
from lm_eval_eglr.store.manifest import Manifest, read_plans
from lm_eval_eglr.store.pool_file import decode
from lm_eval_eglr.store.pool_key import Place, PoolKey
from lm_eval_eglr.store.undecided import remembered_pairs

if TYPE_CHECKING:
    import pandas

Progress = Callable[[list[PoolPath]], Iterable[PoolPath]]


@dataclass(frozen=True, slots=True)
class StoredPool:
    """A pool and what it belongs to."""

    key: PoolKey
    pool: RolloutPool


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """A document of a task with all its pools joined, as the harness scores it.

    Attributes:
        key: Of its first pool.
        parsed: Its rollouts with their answers.
    """

    key: PoolKey
    parsed: ParsedPool

    @property
    def fields(self) -> dict[str, Any]:
        """The problem's own fields, such as subject and level."""
        return self.key.fields


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Store:
    """A store as it was when it was read.

    Attributes:
        folder: Where it is.
        manifest: Whose rollouts it holds.
        pools: Its pools, by task, document and repeat.
        missing: Places of pools that its run set out to make and has not.
    """

    folder: Path
    manifest: Manifest
    pools: tuple[StoredPool, ...]
    missing: tuple[Place, ...]

    @property
    def tasks(self) -> list[str]:
        """The tasks that have pools."""
        return sorted({stored.key.task for stored in self.pools})

    def documents(self, task: str) -> list[Document]:
        """Parses a task's pools, each document's joined, in the order of the documents.

        Raises:
            ValueError: If the task has no pools here.
        """
        stored = [each for each in self.pools if each.key.task == task]
        if not stored:
            raise ValueError(f"task={task!r}: expected one of {', '.join(self.tasks)}")
        groups = [list(group) for _, group in itertools.groupby(stored, key=lambda each: each.key.doc_id)]
        heads = [group[0].key for group in groups]
        pools = [RolloutPool.join([each.pool for each in group]) for group in groups]
        with remembered_pairs(self.folder):
            parsed = parse_documents(
                pools,
                [head.reference for head in heads],
                [head.rules for head in heads],
                [head.fallbacks for head in heads],
                problems=[
                    str(head.fields.get("problem", pool.prompt))
                    for head, pool in zip(heads, pools, strict=True)
                ],
            )
        return [Document(*pair) for pair in zip(heads, parsed, strict=True)]

    def to_pandas(self, task: str | None = None) -> pandas.DataFrame:
        """Returns a table with one row per rollout: cell, answer, whether it is right, how it was decoded.

        ``correct`` is missing where there is no reference or the answer could not be graded. The problem's
        own fields have columns that begin with ``field_``.

        Args:
            task: Only this task.

        Raises:
            ValueError: If the task has no pools here.
        """
        names = self.tasks if task is None else [task]
        return frame_of((each.key, each.parsed) for name in names for each in self.documents(name))

    def __repr__(self) -> str:
        counts = Counter(stored.key.task for stored in self.pools)
        tasks = ", ".join(f"{task}: {count} pools" for task, count in sorted(counts.items()))
        rollouts = sum(len(stored.pool) for stored in self.pools)
        missing = f", {len(self.missing)} missing" if self.missing else ""
        content = f"{tasks or 'no pools'}, {rollouts} rollouts{missing}"
        return f"Store({str(self.folder)!r}: {self.manifest.model}; {content})"


def read_store(folder: str | Path, progress: Progress = iter) -> Store:
    """Reads a whole store.

    Args:
        folder: The store.
        progress: Is handed the list of files, and yields them: a place for a progress bar.

    Raises:
        StoreError: If it is no store, or any byte of it is not what was written.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    pools = tuple(read_pools(folder, progress))
    for stored in pools:
        manifest.refuse_other_axis(
            stored.pool, f"{folder}: document {stored.key.doc_id} of {stored.key.task}"
        )
    there = {stored.key.place for stored in pools}
    return Store(folder, manifest, pools, tuple(sorted(read_plans(folder).places - there)))


def read_pools(folder: Path, progress: Progress = iter) -> Iterator[StoredPool]:
    """Yields the pools of a store one by one, by task, document and repeat.

    Raises:
        StoreError: If one is damaged.
    """
    warn_of_strays(folder)
    for entry in progress(sorted(pool_paths(folder), key=lambda entry: entry.place)):
        yield StoredPool(*decode(entry.path))
