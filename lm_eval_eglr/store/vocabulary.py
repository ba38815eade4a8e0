"""The text of every token id, so that a page can show tokens without the tokenizer."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lm_eval_eglr.store.atomic_files import StoreError, digest, write_atomically

PATTERN = "vocabulary.*.parquet"


def write_vocabulary(folder: Path, pieces: Callable[[], Sequence[str]], scratch: str) -> None:
    """Writes the vocabulary of a store that has none.

    Args:
        folder: The store.
        pieces: Makes the text of each token id, in order; asked only if it is needed.
        scratch: Name that the file has until it is on the disk.
    """
    if next(folder.glob(PATTERN), None) is not None:
        return
    buffer = io.BytesIO()
    pq.write_table(pa.table({"piece": list(pieces())}), buffer, compression="zstd", use_dictionary=False)
    data = buffer.getvalue()
    write_atomically(folder / PATTERN.replace("*", digest(data)), data, folder / scratch)


def read_vocabulary(folder: Path) -> list[str]:
    """Returns the text of each token id; empty if the store has none.

    Raises:
        StoreError: If it is damaged.
    """
    path = next(folder.glob(PATTERN), None)
    if path is None:
        return []
    data = path.read_bytes()
    if path.name.split(".")[1] != digest(data):
        raise StoreError(f"{path}: damaged, its content does not match the checksum in its name")
    pieces: list[str] = pq.read_table(pa.BufferReader(data))["piece"].to_pylist()
    return pieces
