"""The files of a store: what is where, and which of them hold pools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lm_eval_eglr.store.atomic_files import StoreError
from lm_eval_eglr.store.pool_file import SUFFIX
from lm_eval_eglr.store.pool_key import PoolKey

POOLS = "pools"
DAMAGED = ".damaged-"


@dataclass(frozen=True, slots=True)
class PoolPath:
    """A pool's file and what its name says.

    Attributes:
        path: The file.
        place: Escaped task, document and repeat, as in :attr:`PoolKey.stem`.
        identity: Digest of what decided the draws.
    """

    path: Path
    place: tuple[str, int, int]
    identity: str

    @classmethod
    def of(cls, path: Path) -> PoolPath:
        """Reads a file's name.

        Raises:
            StoreError: If no pool's file is called so.
        """
        try:
            task, doc_id, repeat, identity, _, _ = path.name.split(".")
            return cls(path, (task, int(doc_id), int(repeat)), identity)
        except ValueError:
            raise StoreError(f"{path}: not a file of a rollout store") from None


def place_of(head: PoolKey) -> tuple[str, int, int]:
    """A head's place as file names spell it."""
    return head.stem.split(".")[0], head.doc_id, head.repeat


def pool_paths(folder: Path) -> Iterator[PoolPath]:
    """Yields the files of pools, by task and document; hidden ones are scratch or set aside.

    Raises:
        StoreError: If there is a file of another name, or two files for one place.
    """
    seen: dict[tuple[str, int, int], Path] = {}
    for path in sorted((folder / POOLS).glob("*")):
        if path.name.startswith("."):
            continue
        if path.suffix != SUFFIX:
            raise StoreError(f"{path}: not a file of a rollout store")
        entry = PoolPath.of(path)
        if entry.place in seen:
            raise StoreError(f"{path}: a second pool for the document of {seen[entry.place].name}")
        seen[entry.place] = path
        yield entry
