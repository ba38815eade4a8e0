"""The text of every token id, so that a page can show tokens without the tokenizer."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lm_eval_eglr.store.atomic_files import StoreError, digest, write_atomically
from lm_eval_eglr.store.folder import set_aside
from lm_eval_eglr.store.parquet_file import read_columns, read_named_by_checksum

SCHEMA = pa.schema([pa.field("piece", pa.string())])
_NAME = re.compile(r"vocabulary\.[0-9a-f]{16}\.parquet")


def write_vocabulary(folder: Path, pieces: Callable[[], Sequence[str]], scratch: str) -> None:
    """Writes the vocabulary of a store that has none; a damaged one is set aside.

    Args:
        folder: The store.
        pieces: Makes the text of each token id, in order; asked only if it is needed.
        scratch: Name that the file has until it is on the disk.
    """
    for path in _vocabularies(folder):
        try:
            _read(path)
            return
        except StoreError as error:
            set_aside(path, error, "made again")
    buffer = io.BytesIO()
    table = pa.table({"piece": list(pieces())}, schema=SCHEMA)
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    data = buffer.getvalue()
    write_atomically(folder / f"vocabulary.{digest(data)}.parquet", data, folder / scratch)


def read_vocabulary(folder: Path) -> list[str]:
    """Returns the text of each token id; empty if the store has none.

    Raises:
        StoreError: If it is damaged, or there are two.
    """
    found = _vocabularies(folder)
    if len(found) > 1:
        raise StoreError(f"{found[1]}: a second vocabulary beside {found[0].name}")
    return _read(found[0]) if found else []


def _vocabularies(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("vocabulary.*") if _NAME.fullmatch(path.name))


def _read(path: Path) -> list[str]:
    data = read_named_by_checksum(path)
    try:
        column = read_columns(data, SCHEMA, {"piece"})["piece"]
    except (ValueError, RuntimeError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StoreError(f"{path}: not a vocabulary of a rollout store ({reason})") from None
    if column.null_count:
        raise StoreError(f"{path}: not a vocabulary of a rollout store (piece: null)")
    pieces: list[str] = column.to_pylist()
    return pieces
