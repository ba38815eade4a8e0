"""The columns of a pool's file, and what may stand in them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from eglr_selectors import PoolCost, Telemetry

COST_PREFIX = "pool_"
_TYPES = {
    "int": pa.int64(),
    "int | None": pa.int64(),
    "float": pa.float64(),
    "tuple[float, ...]": pa.list_(pa.float64()),
    "tuple[int, ...]": pa.list_(pa.int32()),
}
TELEMETRY = {field.name: _TYPES[str(field.type)] for field in dataclasses.fields(Telemetry)}
COST = {field.name: _TYPES[str(field.type)] for field in dataclasses.fields(PoolCost)}
TRACES = [name for name, kind in TELEMETRY.items() if pa.types.is_list(kind)]
WITHOUT_TELEMETRY = frozenset(TELEMETRY)
WITHOUT_COST = frozenset(COST_PREFIX + name for name in COST)
"""Columns that a store of texts alone leaves out; readers take what is missing as unknown."""

AXIS = "axis"
"""The depth axis. Only pools of recurrences have the column, so those of spans are what they always were."""

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
        pa.field(AXIS, pa.string()),
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
        *(pa.field(name, kind) for name, kind in TELEMETRY.items()),
        *(pa.field(COST_PREFIX + name, kind) for name, kind in COST.items()),
    ]
)
ROW_TEXTS = ("path", AXIS, "text", "finish_reason")
SCALARS = ["place", "span", "temperature", "sample", *ROW_TEXTS, "score", *(TELEMETRY.keys() - {*TRACES})]
LISTS = frozenset(("tokens", *TRACES))
OF_ROLLOUTS = LISTS.union(SCALARS)
"""Columns that say something of a row's rollout; all others are of the pool, the same in all rows."""
# Columns that every version has written, and never empty. Those that came later are unknown where missing.
FILLED = {
    *("task", "doc_id", "repeat", "place", "span", "sample", "text", "tokens", "finish_reason"),
    *("prompt", "document", "settings", "fields", "rules", "fallbacks"),
}
REQUIRED = FILLED | {"temperature", "score", "reference"}
# What all rows of a pool have in common.
SHARED = [
    *("task", "doc_id", "repeat", "reference", "prompt", "prompt_sha256", "document", "settings", "fields"),
    *("rules", "uses_reference", *(COST_PREFIX + name for name in COST)),
]


def check_columns(table: pa.Table) -> None:
    """Checks the content of a pool's columns, of those that the table has; the types have been checked.

    Raises:
        ValueError: If something stands there that no run writes, with the column and what was expected.
    """
    if not table.num_rows:
        raise ValueError("no rows, expected one per rollout")
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in FILLED and column.null_count:
            raise ValueError(f"{name}: null in {column.null_count} of {table.num_rows} rows")
        if name in SHARED and len(pc.unique(column)) > 1:
            raise ValueError(f"{name}: several values, expected the same in all rows")
        if pa.types.is_list(column.type):
            _check_numbers(f"{name}[]", pc.list_flatten(column), nulls=False)
        else:
            _check_numbers(name, column, nulls=True)
    if AXIS in table.column_names:
        found = pc.unique(table[AXIS]).to_pylist()
        if found != ["R"]:
            shown = ", ".join(map(repr, found))
            raise ValueError(f"{AXIS}={shown}: expected R in all rows, or no such column")
    if "place" in table.column_names:
        places = sorted(table["place"].to_pylist())
        if places != list(range(table.num_rows)):
            raise ValueError("place: expected 0, 1, 2, ... in some order")


def _check_numbers(name: str, values: pa.ChunkedArray, nulls: bool) -> None:
    """Counts and indices are not negative, costs and temperatures are also finite."""
    if values.null_count and not nulls:
        raise ValueError(f"{name}: null in a list")
    if pa.types.is_integer(values.type):
        lowest = pc.min(values).as_py()
        if lowest is not None and lowest < 0:
            raise ValueError(f"{name}={lowest}: expected an integer >= 0")
    if name == "temperature" or name.startswith(COST_PREFIX):
        for value in pc.unique(values).to_pylist():
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name}={value}: expected a finite number >= 0")


def joined(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; what is one already, as is usual, is not copied."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def text_bytes(column: pa.ChunkedArray) -> int:
    """Bytes of a column's texts once each row has its own, also where the column is a dictionary."""
    total = 0
    for chunk in column.chunks:
        lengths: Any = pc.binary_length(chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk)
        if isinstance(chunk, pa.DictionaryArray):
            lengths = lengths.take(chunk.indices)
        total += pc.sum(lengths).as_py() or 0
    return total
