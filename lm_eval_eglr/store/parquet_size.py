"""What a Parquet file unpacks to, read from its page headers before anything is unpacked.

A stranger's file of a few kilobytes may hold pages that unpack to gigabytes, and its footer may give other
sizes than the pages have. Arrow allocates by the headers of the pages, so these are summed up here.
Source: Apache Parquet's format, ``parquet.thrift``, in Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

# PLAIN, PLAIN_DICTIONARY, RLE, BIT_PACKED, RLE_DICTIONARY, BYTE_STREAM_SPLIT: no value is longer than its
# bytes in the page, or than an entry of the dictionary page. The DELTA encodings, in which a value repeats a
# part of the one before, are not written by any version of the store.
ENCODINGS = {0, 2, 3, 4, 8, 9}
BYTES_PER_VALUE = 48  # of a value and its levels in Arrow, and of the Python object that is made of it
TYPE, UNPACKED, PACKED, DATA, DICTIONARY, DATA_2 = 1, 2, 3, 5, 7, 8  # numbers of the header's fields
DEPTH = 8
STOP, TRUE, FALSE, BYTE, I64, DOUBLE, BINARY, STRUCT = 0, 1, 2, 3, 6, 7, 8, 12  # types of Thrift


def unpacked_size(data: bytes, metadata: pq.FileMetaData) -> int:
    """Returns how many bytes a file needs in memory once it is read, at most.

    Args:
        data: The file.
        metadata: Its footer.

    Raises:
        ValueError: If a page header is none, or names an encoding that no store is written with.
    """
    return sum(
        size + BYTES_PER_VALUE * values
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
        for size, values in _pages(data, metadata.row_group(group).column(column))
    )


def _pages(data: bytes, chunk: pq.ColumnChunkMetaData) -> Iterator[tuple[int, int]]:
    """Yields bytes and values of each page of a column."""
    start = chunk.data_page_offset
    if chunk.dictionary_page_offset is not None and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    end = start + chunk.total_compressed_size
    if not 0 <= start <= end <= len(data):
        raise ValueError("a column lies outside of the file")
    while start < end:
        header = _Compact(data, start)
        fields = header.struct()
        body = fields.get(DATA) or fields.get(DATA_2) or fields.get(DICTIONARY) or {}
        # The number of values is the first field of each; the encoding is the fourth in data of version 2.
        values, encoding = body.get(1, 0), body.get(4 if DATA_2 in fields else 2, 0)
        sizes = (fields.get(UNPACKED), fields.get(PACKED), values)
        if not all(isinstance(size, int) and 0 <= size < 2**31 for size in sizes):
            raise ValueError("a page without a size")
        if encoding not in ENCODINGS:
            raise ValueError(f"a page with encoding {encoding}")
        start = header.position + fields[PACKED]
        yield fields[UNPACKED], values


class _Compact:
    """Thrift's compact protocol, as far as page headers need it."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self.position = position

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Reads a struct: field numbers to integers, truth values and structs; other values are skipped."""
        if depth > DEPTH:
            raise ValueError("a page header that is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) & 0x0F != STOP:
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 0x0F, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind == BYTE:
            return self._byte()
        if BYTE < kind <= I64:
            return self._integer()
        if kind == DOUBLE:
            return self._skip(8)
        if kind == BINARY:
            return self._skip(self._varint())
        if kind == STRUCT:
            return self.struct(depth + 1)
        raise ValueError("a page header with a list or a map")  # no field of one has such a type

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise ValueError("a page header that ends early")
        self.position += 1
        return self._data[self.position - 1]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a page header with a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, count: int) -> None:
        self.position += count
