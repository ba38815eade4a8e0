"""One pool as one Parquet file: a row per rollout, the checksum of the content in the file's name."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from eglr_selectors import Cell, PoolCost, Rollout, RolloutPool, Telemetry

from lm_eval_eglr.store.atomic_files import StoreError, digest
from lm_eval_eglr.store.pool_key import PoolKey

SUFFIX = ".parquet"
COST_PREFIX = "pool_"
_TYPES = {
    "int": pa.int64(),
    "int | None": pa.int64(),
    "float": pa.float64(),
    "tuple[float, ...]": pa.list_(pa.float64()),
    "tuple[int, ...]": pa.list_(pa.int32()),
}
_TELEMETRY = {field.name: _TYPES[str(field.type)] for field in dataclasses.fields(Telemetry)}
_COST = {field.name: _TYPES[str(field.type)] for field in dataclasses.fields(PoolCost)}
_TRACES = [name for name, kind in _TELEMETRY.items() if pa.types.is_list(kind)]
_SCALARS = {"place", "span", "temperature", "sample", "path", "text", "finish_reason", "score"} | (
    _TELEMETRY.keys() - {*_TRACES}
)

SCHEMA = pa.schema(
    [
        pa.field("task", pa.string()),
        pa.field("doc_id", pa.int64()),
        pa.field("repeat", pa.int64()),
        pa.field("place", pa.int64()),
        pa.field("span", pa.int64()),
        pa.field("temperature", pa.float64()),
        pa.field("sample", pa.int64()),
        pa.field("path", pa.string()),
        pa.field("text", pa.string()),
        pa.field("tokens", pa.list_(pa.int32())),
        pa.field("finish_reason", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("reference", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("prompt_sha256", pa.string()),
        pa.field("document", pa.string()),
        pa.field("settings", pa.string()),
        pa.field("fields", pa.string()),
        pa.field("rules", pa.string()),
        pa.field("fallbacks", pa.list_(pa.string())),
        pa.field("uses_reference", pa.bool_()),
        *(pa.field(name, kind) for name, kind in _TELEMETRY.items()),
        *(pa.field(COST_PREFIX + name, kind) for name, kind in _COST.items()),
    ]
)
# What repeats from row to row is written once. Values that hardly repeat are dearer with a dictionary.
_DICTIONARY = [field.name for field in SCHEMA if pa.types.is_string(field.type) and field.name != "text"] + [
    "tokens.list.element",
    "token_iterations.list.element",
]
# Traces are 32-bit values held as 64-bit ones: split by byte, the half that is zero costs nothing.
_SPLIT = [f"{name}.list.element" for name in _TRACES if _TELEMETRY[name] == pa.list_(pa.float64())]


def encode(head: PoolKey, pool: RolloutPool) -> tuple[str, bytes]:
    """Returns the name and the content of a pool's file; the same pool always gives the same bytes.

    Raises:
        StoreError: If the pool is empty.
    """
    if not len(pool):
        raise StoreError(f"document {head.doc_id} of {head.task}: a pool without rollouts cannot be stored")
    shared = head.to_columns()
    shared["prompt"] = pool.prompt
    shared["uses_reference"] = pool.uses_reference
    shared["prompt_sha256"] = hashlib.sha256(pool.prompt.encode("utf-8", "replace")).hexdigest()
    cost = {} if pool.cost is None else dataclasses.asdict(pool.cost)
    shared |= {COST_PREFIX + name: value for name, value in cost.items()}
    rows = [{**shared, **_row(place, rollout)} for place, rollout in enumerate(pool)]
    columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(columns, schema=SCHEMA),
        buffer,
        compression="zstd",
        compression_level=6,
        use_dictionary=_DICTIONARY,
        column_encoding=dict.fromkeys(_SPLIT, "BYTE_STREAM_SPLIT"),
        write_statistics=False,
    )
    data = buffer.getvalue()
    return f"{head.stem}.{digest(data)}{SUFFIX}", data


def _row(place: int, rollout: Rollout) -> dict[str, Any]:
    telemetry = {} if rollout.telemetry is None else dataclasses.asdict(rollout.telemetry)
    return {
        "place": place,
        **dataclasses.asdict(rollout.cell),
        "path": rollout.cell.branch,
        "text": rollout.text,
        "tokens": rollout.tokens,
        "finish_reason": rollout.finish_reason,
        "score": rollout.score,
        **telemetry,
    }


def decode(path: Path) -> tuple[PoolKey, RolloutPool]:
    """Reads a pool's file.

    Raises:
        StoreError: If it cannot be read, or is not what was written.
    """
    data = _read_verified(path)
    with _foreign_refused(path):
        return _read(data)


def _read(data: bytes) -> tuple[PoolKey, RolloutPool]:
    table = pq.read_table(pa.BufferReader(data), use_threads=False)
    first = table.slice(0, 1).to_pylist()[0]
    # Arrow makes Python objects of lists slowly, and the head is the same in every row.
    lists = {name: _lists(table[name]) for name in ("tokens", *_TRACES) if name in table.column_names}
    scalars = [name for name in table.column_names if name in _SCALARS]
    rows = table.select(scalars).to_pylist()
    for i, row in enumerate(rows):
        row.update({name: values[i] for name, values in lists.items()})
    rollouts = tuple(_rollout(row) for row in sorted(rows, key=lambda row: row["place"]))
    # Pools of older versions neither branch nor look at the reference.
    pool = RolloutPool(rollouts, first["prompt"], _cost(first), bool(first.get("uses_reference")))
    return PoolKey.from_columns(first), pool


def decode_cost(path: Path) -> tuple[int, int, PoolCost | None]:
    """Reads a pool's number of rollouts and of their tokens, and its cost, and leaves the rest unread.

    Raises:
        StoreError: If it cannot be read, or is not what was written.
    """
    names = [COST_PREFIX + name for name in _COST]
    data = _read_verified(path)
    with _foreign_refused(path):
        table = pq.read_table(pa.BufferReader(data), columns=["tokens", *names], use_threads=False)
        there = [name for name in names if name in table.column_names]
        first = table.select(there).slice(0, 1).to_pylist()[0]
        return table.num_rows, len(table["tokens"].combine_chunks().flatten()), _cost(first)


@contextlib.contextmanager
def _foreign_refused(path: Path) -> Iterator[None]:
    """The checksum says only that a file is whole, and a stranger can give any file one."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise StoreError(f"{path}: not a pool of a rollout store ({reason})") from None


def _read_verified(path: Path) -> bytes:
    """The content of a file, if it is what was written."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    if path.name.split(".")[-2:-1] != [digest(data)]:
        raise StoreError(f"{path}: damaged, its content does not match the checksum in its name")
    return data


def _cost(row: dict[str, Any]) -> PoolCost | None:
    if row["pool_tokens"] is None:
        return None
    return PoolCost(**{name: row[COST_PREFIX + name] for name in _COST if COST_PREFIX + name in row})


def _lists(column: pa.ChunkedArray) -> list[tuple[Any, ...] | None]:
    lists = column.combine_chunks()
    offsets = lists.offsets.to_pylist()
    values = lists.values.to_numpy(zero_copy_only=False).tolist()
    present = lists.is_valid().to_pylist()
    return [
        tuple(values[start:end]) if there else None
        for start, end, there in zip(offsets[:-1], offsets[1:], present, strict=True)
    ]


def _rollout(row: dict[str, Any]) -> Rollout:
    known = {name: row[name] for name in _TELEMETRY if row.get(name) is not None}
    telemetry = None
    if known:
        telemetry = Telemetry(**known)
    return Rollout(
        text=row["text"],
        cell=Cell(row["span"], row["temperature"], row["sample"], Cell.path_of(row.get("path"))),
        finish_reason=row["finish_reason"],
        tokens=row["tokens"],
        telemetry=telemetry,
        score=row["score"],
    )
