"""The files of a store: what is where, and which of them hold pools."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lm_eval_eglr.store.atomic_files import StoreError
from lm_eval_eglr.store.pool_key import PoolKey

logger = logging.getLogger(__name__)

POOLS = "pools"
ROUNDS = "rounds"  # pools between two rounds, kept so that a stopped run need not repeat them
DAMAGED = ".damaged-"
_POOL = re.compile(r"([A-Za-z0-9_%-]+)\.(\d{1,19})\.(\d{1,19})\.[0-9a-f]{16}\.[0-9a-f]{16}\.parquet")


@dataclass(frozen=True, slots=True)
class PoolPath:
    """A pool's file and what its name says.

    A store of a hundred thousand pools has as many of these in memory, so they are small: the folder is one
    object for all, and a task's name is one text.

    Attributes:
        folder: Where the file is.
        name: The file's name.
        place: Escaped task, document and repeat, as in :attr:`PoolKey.stem`.
    """

    folder: Path
    name: str
    place: tuple[str, int, int]

    @classmethod
    def of(cls, folder: Path, name: str) -> PoolPath | None:
        """Reads a file's name; ``None`` if no pool's file can have it."""
        found = _POOL.fullmatch(name)
        if found is None:
            return None
        task, doc_id, repeat = found.groups()
        return cls(folder, name, (sys.intern(task), int(doc_id), int(repeat)))

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.name

    @property
    def identity(self) -> str:
        """Digest of what decided the draws."""
        return self.name.split(".")[3]


def place_of(head: PoolKey) -> tuple[str, int, int]:
    """A head's place as file names spell it."""
    return head.stem.split(".")[0], head.doc_id, head.repeat


def pool_paths(folder: Path) -> Iterator[PoolPath]:
    """Yields the files of pools, by task and document, and leaves alone what cannot be one.

    Raises:
        StoreError: If the folder cannot be read, or there are two files for one place.
    """
    seen: dict[tuple[str, int, int], str] = {}
    for entry in _named_as_pools(folder / POOLS):
        if entry.place in seen:
            raise StoreError(f"{entry.path}: a second pool for the document of {seen[entry.place]}")
        seen[entry.place] = entry.name
        yield entry


def round_paths(folder: Path) -> list[PoolPath]:
    """The files of pools between two rounds; with more documents to share with, one place has several.

    Raises:
        StoreError: If the folder cannot be read.
    """
    return list(_named_as_pools(folder / ROUNDS))


def stray_files(folder: Path) -> list[Path]:
    """What lies among the pools and is none: a file manager's, or a sync tool's copy under a name of its own.

    Hidden files are left out: they are scratch, set aside, or of other programs that hide what they leave.

    Raises:
        StoreError: If the folder cannot be read.
    """
    folders = (folder / POOLS, folder / ROUNDS)
    return [inner / name for inner in folders for name in _files(inner) if PoolPath.of(inner, name) is None]


def warn_of_strays(folder: Path) -> None:
    """Names what lies among the pools and is left alone.

    Raises:
        StoreError: If the folder cannot be read.
    """
    strays = stray_files(folder)
    if strays:
        more = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
        logger.warning("%s%s: not a file of a rollout store, left alone", strays[0], more)


def set_aside_files(folder: Path) -> list[Path]:
    """Damaged files that runs have renamed, so that they could go on."""
    return [path for inner in (".", POOLS, ROUNDS) for path in sorted((folder / inner).glob(f"{DAMAGED}*"))]


def set_aside(path: Path, error: StoreError, remedy: str = "decoded again") -> None:
    """Renames a damaged file, so that it is made again and can still be looked at.

    Raises:
        OSError: If it cannot be renamed.
    """
    logger.warning("%s; it is set aside and %s", error, remedy)
    path.rename(path.with_name(DAMAGED + path.name))


def _named_as_pools(folder: Path) -> Iterator[PoolPath]:
    return (entry for name in _files(folder) if (entry := PoolPath.of(folder, name)) is not None)


def _files(folder: Path) -> list[str]:
    """The names in a folder that are not hidden; a folder that may not be read is no empty one."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{folder}: cannot be read ({error.strerror})") from error
