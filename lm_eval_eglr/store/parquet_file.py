"""Parquet files of a store, opened: bounded in size and of the expected types before anything is unpacked."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lm_eval_eglr.store.atomic_files import StoreError, digest, read_bytes
from lm_eval_eglr.store.parquet_size import unpacked_size

SMALL = 256 * 2**20
"""Bytes that any file may unpack to."""
FACTOR = 100
"""A larger one may unpack to so many times its size; what runs write stays below 30 times."""


def read_named_by_checksum(path: Path) -> bytes:
    """Reads a file whose name holds the checksum of its content before the suffix.

    Raises:
        StoreError: If it cannot be read, or is not what was written.
    """
    data = read_bytes(path)
    if path.name.split(".")[-2:-1] != [digest(data)]:
        raise StoreError(f"{path}: damaged, its content does not match the checksum in its name")
    return data


def read_columns(
    data: bytes, schema: pa.Schema, required: Container[str], names: Sequence[str] | None = None
) -> pa.Table:
    """Reads a Parquet file's columns; texts that repeat are kept once, as dictionaries.

    Arrow's threads are not used: the tables are small, and a thread that is still there when the interpreter
    ends has ended it with SIGABRT.

    Args:
        data: The file.
        schema: The columns that are known; others are left unread.
        required: Names of those that must be there.
        names: The columns to read; ``None`` reads all that are known.

    Raises:
        ValueError: If a column is missing or of another type, or the file would unpack to more than it may.
        pyarrow.ArrowException: If it is no Parquet file.
    """
    metadata = pq.read_metadata(pa.BufferReader(data))
    there = metadata.schema.to_arrow_schema()
    positions: dict[str, list[int]] = {}
    for position, name in enumerate(there.names):
        positions.setdefault(name, []).append(position)
    found = []
    for field in schema:
        at = positions.get(field.name, [])
        if len(at) > 1 or (not at and field.name in required):
            raise ValueError(f"{len(at)} columns {field.name}, expected one")
        if at:
            kind = there.field(at[0]).type
            if kind != field.type:
                raise ValueError(f"{field.name}: {kind}, expected {field.type}")
            found.append(field)
    limit = size_limit(data)
    if (size := unpacked_size(data, metadata)) > limit:
        raise ValueError(f"it unpacks to {size} bytes, expected at most {limit}")
    texts = [field.name for field in found if pa.types.is_string(field.type)]
    texts += [f"{field.name}.list.element" for field in found if field.type == pa.list_(pa.string())]
    file = pq.ParquetFile(pa.BufferReader(data), metadata=metadata, read_dictionary=texts)
    wanted = [field.name for field in found if names is None or field.name in names]
    return file.read(columns=wanted, use_threads=False)


def size_limit(data: bytes) -> int:
    """Bytes that a file may unpack to."""
    return max(SMALL, FACTOR * len(data))
