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
TRUE, FALSE, BYTE, I64, DOUBLE, BINARY, STRUCT = 1, 2, 3, 6, 7, 8, 12  # types of Thrift


def unpacked_size(data: bytes, metadata: pq.FileMetaData) -> int:
    """Returns how many bytes a file needs in memory once it is read, at most.

    Args:
        data: The file.
        metadata: Its footer.

    Raises:
        ValueError: If a page header is none, or names an encoding that no store is written with.
    """
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    return sum(
        size + BYTES_PER_VALUE * values
        for group in groups
        for column in range(metadata.num_columns)
        for size, values in _pages(data, group.column(column))
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
        fields, start = _struct(data, start)
        body = fields.get(DATA) or fields.get(DATA_2) or fields.get(DICTIONARY) or {}
        # The number of values is the first field of each; the encoding is the fourth in data of version 2.
        values, encoding = body.get(1, 0), body.get(4 if DATA_2 in fields else 2, 0)
        sizes = (fields.get(UNPACKED), fields.get(PACKED), values)
        if not all(isinstance(size, int) and 0 <= size < 2**31 for size in sizes):
            raise ValueError("a page without a size")
        if encoding not in ENCODINGS:
            raise ValueError(f"a page with encoding {encoding}")
        start += fields[PACKED]
        yield fields[UNPACKED], values


def _struct(data: bytes, position: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Reads a struct of Thrift's compact protocol, as far as page headers need it.

    A pool's file has seventy headers; by an object that holds the position they took a fifth of the time of
    reading it.

    Returns:
        Numbers of fields to integers, truth values and structs, other values left out; and where it ends.
    """
    if depth > DEPTH:
        raise ValueError("a page header that is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    try:
        while kind := (head := data[position]) & 0x0F:  # 0 ends a struct
            position += 1
            if head >> 4:
                number += head >> 4
            else:
                number, position = _integer(data, position)
            if BYTE < kind <= I64:
                fields[number], position = _integer(data, position)
            elif kind == STRUCT:
                fields[number], position = _struct(data, position, depth + 1)
            elif kind in (TRUE, FALSE):
                fields[number] = kind == TRUE
            elif kind == BYTE:
                fields[number] = data[position]
                position += 1
            elif kind == DOUBLE:
                position += 8
            elif kind == BINARY:
                length, position = _varint(data, position)
                position += length
            else:
                raise ValueError("a page header with a list or a map")  # no field of one has such a type
    except IndexError:
        raise ValueError("a page header that ends early") from None
    return fields, position + 1


def _integer(data: bytes, position: int) -> tuple[int, int]:
    """Reads a signed number, of one byte mostly, and says where it ends."""
    value = data[position]
    position += 1
    if value >= 0x80:
        value, position = _varint(data, position - 1)
    return (value >> 1) ^ -(value & 1), position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Reads an unsigned number, and says where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a page header with a number of more than 64 bits")
