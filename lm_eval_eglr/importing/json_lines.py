"""JSON and JSON lines from strangers: every failure names the file and the line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def check_regular(path: Path) -> None:
    """Raises ValueError for a pipe or a device, which could be waited for without end."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: expected a regular file")


def read_json(path: Path) -> Any:
    """Reads one JSON value.

    Raises:
        ValueError: If the file is no JSON or cannot be read.
    """
    check_regular(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not JSON") from None


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each line's object with where it stands (``file.jsonl, line 3``); empty lines are skipped.

    Raises:
        ValueError: If a line is no JSON object.
    """
    check_regular(path)
    try:
        # Only "\n" ends a line: JSON may hold other separators inside its strings.
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path}, line {number}"
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    raise ValueError(f"{where}: not JSON") from None
                if not isinstance(record, dict):
                    raise ValueError(f"{where}: {type(record).__name__}, expected a JSON object")
                yield where, record
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None


def first_record(path: Path) -> dict[str, Any]:
    """The first object of a file of JSON lines, or of a file that is one JSON value; empty if neither.

    For telling formats apart: it raises nothing.
    """
    try:
        for _, record in read_lines(path):
            return record
    except ValueError:
        pass
    try:
        value = read_json(path)
    except ValueError:
        return {}
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) else {}


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """As :func:`read_lines`, also of a file that is one JSON object or a list of them.

    Raises:
        ValueError: If it is neither.
    """
    check_regular(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        yield from read_lines(path)
        return
    for number, record in enumerate(value if isinstance(value, list) else [value], 1):
        where = f"{path}, record {number}"
        if not isinstance(record, dict):
            raise ValueError(f"{where}: {type(record).__name__}, expected a JSON object")
        yield where, record


def texts_in(record: dict[str, Any], key: str, where: str) -> list[str]:
    """A record's list of texts.

    Raises:
        ValueError: If it is none, or empty.
    """
    texts = record.get(key)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where}: {key}: expected a list of at least one text")
    return texts
