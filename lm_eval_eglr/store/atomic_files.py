"""Files that are whole or absent, and small JSON files that notice a changed byte."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"
LARGEST_JSON = 128 * 2**20
"""Bytes of a manifest or plan: enough for a plan of a million pools."""


class StoreError(ValueError):
    """A store that cannot be written, read or trusted; the message is one line and names the file."""


def digest(data: bytes) -> str:
    """A checksum of 16 hexadecimal digits (BLAKE2b)."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def canonical(value: Any) -> str:
    """The one JSON text of a value, ASCII only."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def write_atomically(path: Path, data: bytes, scratch: Path, sync_rename: bool = True) -> None:
    """Writes a file that is there completely or not at all, also after a power cut.

    Args:
        path: The file.
        data: Its content.
        scratch: Name in the same folder that the content has until it is on the disk.
        sync_rename: Whether the file outlasts a power cut from now on. Without, it does from the next call of
            :func:`sync_folder` on, which serves many files at once; until then a power cut may take it away,
            but never leaves a part of it.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the scratch file is then removed.
    """
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    if sync_rename:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes a rename last. Windows cannot open folders, and needs no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Reads a whole file; a pipe or a device of that name is refused, since reading one may never end.

    Args:
        path: The file.
        limit: Most bytes that it may have.

    Raises:
        StoreError: If it cannot be read, is no regular file or larger than that.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise StoreError(f"{path}: not a regular file")
            if limit is not None and found.st_size > limit:
                raise StoreError(f"{path}: {found.st_size} bytes, expected at most {limit}")
            return file.read()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error


def with_checksum(content: Mapping[str, Any]) -> bytes:
    """Returns a mapping as JSON that carries its own checksum."""
    sealed = {**content, CHECKSUM: digest(canonical(content).encode())}
    return (json.dumps(sealed, indent=2) + "\n").encode()


def read_checked(path: Path) -> dict[str, Any]:
    """Reads what :func:`with_checksum` made.

    Raises:
        StoreError: If the file cannot be read, or is not what was written.
    """
    data = read_bytes(path, LARGEST_JSON)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise StoreError(f"{path}: damaged, it is not JSON") from None
    if not isinstance(content, dict) or CHECKSUM not in content:
        raise StoreError(f"{path}: damaged, it has no {CHECKSUM}")
    checksum = content.pop(CHECKSUM)
    if checksum != digest(canonical(content).encode()):
        raise StoreError(f"{path}: damaged, its content does not match its checksum")
    return content
