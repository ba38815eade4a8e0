"""One pool as one Parquet file: a row per rollout, the checksum of the content in the file's name."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from eglr_selectors import Cell, PoolCost, Rollout, RolloutPool, Telemetry

from lm_eval_eglr.store.atomic_files import StoreError, digest
from lm_eval_eglr.store.parquet_file import read_columns, read_named_by_checksum, size_limit
from lm_eval_eglr.store.pool_key import PoolKey
from lm_eval_eglr.store.pool_schema import (
    AXIS,
    COST,
    COST_PREFIX,
    LISTS,
    OF_ROLLOUTS,
    REQUIRED,
    ROW_TEXTS,
    SCHEMA,
    TELEMETRY,
    TRACES,
    check_columns,
    joined,
    text_bytes,
)

SUFFIX = ".parquet"
_LEAVES = {
    field.name: f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
    for field in SCHEMA
}
"""The columns as Parquet calls them."""
# What repeats from row to row is written once. Values that hardly repeat are dearer with a dictionary.
_DICTIONARY = {field.name for field in SCHEMA if pa.types.is_string(field.type)} - {"text"} | {
    *("tokens", "token_iterations", "doc_id", "repeat", "span", "temperature", "fallbacks")
}
# Of one short value or a few: compressed they are longer, and to begin a compressor costs more than to write.
_SHORT = {
    *("task", "doc_id", "repeat", "span", "temperature", AXIS, "finish_reason", "score", "reference"),
    *("prompt_sha256", "document", "rules", "fallbacks", "uses_reference"),
}
# Traces are 32-bit values held as 64-bit ones: split by byte, the half that is zero costs nothing.
_SPLIT = {name for name in TRACES if TELEMETRY[name] == pa.list_(pa.float64())}


def encode(head: PoolKey, pool: RolloutPool, unknown: Set[str] = frozenset()) -> tuple[str, bytes]:
    """Returns the name and the content of a pool's file; the same pool always gives the same bytes.

    Args:
        head: What the pool belongs to.
        pool: Its rollouts.
        unknown: Columns that no pool of the store has values in; they are left out of the file, which they
            would make three times as large where the rollouts are texts alone.

    Raises:
        StoreError: If the pool is empty, or holds something that :func:`decode` would refuse, or a value in
            a column that is left out.
    """
    whose = f"document {head.doc_id} of {head.task}"
    if not len(pool):
        raise StoreError(f"{whose}: a pool without rollouts cannot be stored")
    shared = head.to_columns()
    shared["prompt"] = pool.prompt
    shared["uses_reference"] = pool.uses_reference
    cost = {} if pool.cost is None else dataclasses.asdict(pool.cost)
    shared |= {COST_PREFIX + name: value for name, value in cost.items()}
    with _refused(f"{whose}: cannot be stored"):
        shared["prompt_sha256"] = hashlib.sha256(pool.prompt.encode()).hexdigest()
        rows = [_row(place, rollout) for place, rollout in enumerate(pool)]
        for row in (shared, *rows):
            known = sorted(name for name in row.keys() & unknown if row[name] is not None)
            if known:
                raise ValueError(f"its store has no columns for {', '.join(known)}")
        schema, options = _layout(pool.axis.symbol, frozenset(unknown))
        columns = [
            pa.array(
                [shared[field.name]] * len(rows)
                if field.name in shared
                else [row.get(field.name) for row in rows],
                type=field.type,
            )
            for field in schema
        ]
        table = pa.table(columns, schema=schema)
        check_columns(table)
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        **options,
        write_statistics=False,
        store_schema=False,  # 5 kB per file to say what Parquet's own types say of these columns
    )
    data = buffer.getvalue()
    return f"{head.stem}.{digest(data)}{SUFFIX}", data


@functools.cache
def _layout(axis: str, unknown: frozenset[str]) -> tuple[pa.Schema, dict[str, Any]]:
    """The columns of a pool's file, and how Parquet is to encode and compress them."""
    left_out = unknown if axis != "L" else {*unknown, AXIS}
    schema = pa.schema([field for field in SCHEMA if field.name not in left_out])
    leaves = {name: _LEAVES[name] for name in schema.names}
    compressed = [leaf for name, leaf in leaves.items() if name not in _SHORT]
    return schema, {
        "compression": dict.fromkeys(leaves.values(), "NONE") | dict.fromkeys(compressed, "ZSTD"),
        "compression_level": dict.fromkeys(compressed, 6),
        "use_dictionary": [leaf for name, leaf in leaves.items() if name in _DICTIONARY],
        "column_encoding": {leaf: "BYTE_STREAM_SPLIT" for name, leaf in leaves.items() if name in _SPLIT},
    }


def _row(place: int, rollout: Rollout) -> dict[str, Any]:
    # Not asdict, which copies every value of every trace.
    telemetry = {} if rollout.telemetry is None else _fields(rollout.telemetry)
    return {
        "place": place,
        **_fields(rollout.cell),
        "path": rollout.cell.branch,
        "text": rollout.text,
        "tokens": rollout.tokens,
        "finish_reason": rollout.finish_reason,
        "score": rollout.score,
        **telemetry,
    }


def _fields(value: Cell | Telemetry) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def decode(path: Path) -> tuple[PoolKey, RolloutPool]:
    """Reads a pool's file.

    This decides what a file must be, whoever reads it: whole, bounded, of the types that are written, one
    pool from its first row to its last, and under the name that its content has.

    Raises:
        StoreError: If it cannot be read, or is not what was written.
    """
    data = read_named_by_checksum(path)
    with _refused(f"{path}: not a pool of a rollout store"):
        table = read_columns(data, SCHEMA, REQUIRED)
        check_columns(table)
        head, first = _head(path, table, size_limit(data))
        # By column and by numpy: Arrow makes Python objects slowly. The head is the same in every row.
        columns = {
            name: _lists(column) if name in LISTS else _scalars(column)
            for name, column in zip(table.column_names, table.columns, strict=True)
            if name in OF_ROLLOUTS
        }
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        rollouts = tuple(_rollout(row) for row in sorted(rows, key=lambda row: row["place"]))
        # Pools of older versions neither branch nor look at the reference.
        pool = RolloutPool(rollouts, first["prompt"], _cost(first), bool(first.get("uses_reference")))
        return head, pool


def decode_cost(path: Path) -> tuple[int, int, PoolCost | None]:
    """Reads a pool's number of rollouts and of their tokens, and its cost, and leaves rollouts unread.

    Raises:
        StoreError: If it cannot be read, or is not what was written.
    """
    data = read_named_by_checksum(path)
    with _refused(f"{path}: not a pool of a rollout store"):
        names = [name for name in SCHEMA.names if name == "tokens" or name not in OF_ROLLOUTS]
        table = read_columns(data, SCHEMA, REQUIRED, names)
        check_columns(table)
        _, first = _head(path, table, size_limit(data))
        return table.num_rows, len(joined(table["tokens"]).flatten()), _cost(first)


@contextlib.contextmanager
def _refused(what: str) -> Iterator[None]:
    """The checksum says only that a file is whole, and a stranger can give any file one."""
    try:
        yield
    except StoreError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise StoreError(f"{what} ({reason})") from None


def _head(path: Path, table: pa.Table, limit: int) -> tuple[PoolKey, dict[str, Any]]:
    """What a pool belongs to, and its first row, if all texts together are no longer than ``limit`` bytes."""
    names = table.column_names
    one = table.select([name for name in names if name not in OF_ROLLOUTS]).slice(0, 1)
    texts = [table[name] for name in ROW_TEXTS if name in names]
    for column in one.columns:
        flat = joined(column).flatten() if pa.types.is_list(column.type) else column
        if pa.types.is_string(flat.type) or pa.types.is_dictionary(flat.type):
            texts.append(pa.chunked_array([flat]) if isinstance(flat, pa.Array) else flat)
    if (size := sum(map(text_bytes, texts))) > limit:
        raise ValueError(f"its texts have {size} bytes, expected at most {limit}")
    [first] = one.to_pylist()
    head = PoolKey.from_columns(first)
    if not path.name.startswith(head.stem + "."):
        raise StoreError(f"{path}: damaged, its name is not that of its content")
    return head, first


def _cost(row: dict[str, Any]) -> PoolCost | None:
    if row.get("pool_tokens") is None:
        return None
    values = {name: row.get(COST_PREFIX + name) for name in COST}
    return PoolCost(**{name: value for name, value in values.items() if value is not None})


def _scalars(column: pa.ChunkedArray) -> list[Any]:
    if column.null_count or not pa.types.is_primitive(column.type):
        values: list[Any] = column.to_pylist()
    else:
        values = column.to_numpy().tolist()
    return values


def _lists(column: pa.ChunkedArray) -> list[tuple[Any, ...] | None]:
    lists = joined(column)
    offsets = lists.offsets.to_pylist()
    values = lists.values.to_numpy(zero_copy_only=False).tolist()
    present = lists.is_valid().to_pylist()
    return [
        tuple(values[start:end]) if there else None
        for start, end, there in zip(offsets[:-1], offsets[1:], present, strict=True)
    ]


def _rollout(row: dict[str, Any]) -> Rollout:
    known = {name: row[name] for name in TELEMETRY if row.get(name) is not None}
    telemetry = None
    if known:
        telemetry = Telemetry(**known)
    return Rollout(
        text=row["text"],
        cell=Cell(
            row["span"],
            row["temperature"],
            row["sample"],
            Cell.path_of(row.get("path")),
            axis=row.get(AXIS, "L"),
        ),
        finish_reason=row["finish_reason"],
        tokens=row["tokens"],
        telemetry=telemetry,
        score=row["score"],
    )
