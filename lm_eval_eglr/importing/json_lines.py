"""JSON and JSON lines from strangers: every failure names the file and the line."""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def check_regular(path: Path) -> None:
    """Raises ValueError for a folder, and for a pipe or a device, which could be waited for without end."""
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe or a device"
        raise ValueError(f"{path}: {what}, expected a file")


def read_json(path: Path) -> Any:
    """Reads one JSON value.

    Raises:
        ValueError: If the file is no JSON or cannot be read.
    """
    check_regular(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not JSON") from None


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each line's object with where it stands (``file.jsonl, line 3``); empty lines are skipped.

    Raises:
        ValueError: If a line is no JSON object.
    """
    return ((where, record) for where, _, record in _placed_lines(path))


def _placed_lines(path: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yields each line's object with where it stands, for people and in bytes from the file's beginning."""
    check_regular(path)
    try:
        # Only "\n" ends a line: JSON may hold other separators inside its strings. Each line is decoded by
        # itself, so that damage further on does not hide what the lines before it are.
        with path.open("rb") as file:
            offset = 0
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path}, line {number}"
                    yield where, offset, _parsed(line, "utf-8-sig" if number == 1 else "utf-8", where)
                offset += len(line)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None


def _parsed(line: bytes, encoding: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line.decode(encoding))
    except UnicodeDecodeError:
        raise ValueError(f"{where}: not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{where}: not JSON") from None
    return _object(record, where)


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """As :func:`read_lines`, also of a file that is one JSON object or a list of them.

    Raises:
        ValueError: If it is neither.
    """
    return ((where, record) for _, where, record in Records(path))


class Records:
    """The records of a file, of which some can be read again: of JSON lines, only their places are kept.

    Args:
        path: A file of JSON lines, or one JSON object or a list of them, which is then held in memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = array("q")
        self._values: list[tuple[str, dict[str, Any]]] = []

    def __iter__(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Yields each record with its number and where it stands.

        Raises:
            ValueError: If the file is neither.
        """
        self._offsets, self._values = array("q"), []
        lines = _placed_lines(self._path)
        try:
            first = next(lines, None)
        except ValueError as error:
            # The first line may be the beginning of a value that goes over many, or a list.
            self._values = list(_records_of_value(self._path, error))
            yield from ((number, where, record) for number, (where, record) in enumerate(self._values))
            return
        for where, offset, record in itertools.chain([] if first is None else [first], lines):
            self._offsets.append(offset)
            yield len(self._offsets) - 1, where, record

    def again(self, numbers: Iterable[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields some of the records again, after all have been gone through.

        Raises:
            ValueError: If the file has changed since.
        """
        if self._values:
            yield from (self._values[number] for number in numbers)
            return
        with self._path.open("rb") as file:
            for number in numbers:
                file.seek(self._offsets[number])
                where = f"{self._path}, record {number + 1}"
                yield where, _parsed(file.readline(), "utf-8-sig" if not number else "utf-8", where)


def _records_of_value(path: Path, no_line: ValueError) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        value = read_json(path)
    except ValueError:
        raise no_line from None
    for number, record in enumerate(value if isinstance(value, list) else [value], 1):
        where = f"{path}, record {number}"
        yield where, _object(record, where)


def _object(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError(f"{where}: {type(record).__name__}, expected a JSON object")
    return record


def first_record(path: Path) -> dict[str, Any]:
    """The first object of a file of JSON lines, or of a file that is one JSON value; empty if neither.

    For telling formats apart: it raises nothing.
    """
    try:
        return next(read_records(path), ("", {}))[1]
    except ValueError:
        return {}


def texts_in(record: dict[str, Any], key: str, where: str) -> list[str]:
    """A record's list of texts.

    Raises:
        ValueError: If it is none, or empty.
    """
    texts = record.get(key)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where}: {key}: expected a list of texts, at least one")
    return texts
