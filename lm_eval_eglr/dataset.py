"""Problems of a benchmark: from the hub, from a folder of JSONL files, or shipped with the task."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

FOLDER_VARIABLE = "EGLR_DATA_DIR"
REQUIRED = ("id", "problem", "answer")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a benchmark's problems are.

    Attributes:
        file: Name of its JSONL file in a data folder; one object per line with ``id``, ``problem`` and
            ``answer``, and whatever else the benchmark has.
        rows: Number of problems; any other number is an error.
        hub: Hub data set; ``None`` if the file is shipped with the task.
        config: Configuration of the hub data set.
        split: Split of the hub data set.
        columns: Our name to the hub's, where they differ.
    """

    file: str
    rows: int
    hub: str | None = None
    config: str | None = None
    split: str = "test"
    columns: Mapping[str, str] = field(default_factory=dict)


def load_problems(source: Source, shipped_in: Path, folder: str | None = None) -> datasets.Dataset:
    """Loads a benchmark.

    Args:
        source: The benchmark.
        shipped_in: The task's own folder.
        folder: Folder of JSONL files; by default the environment variable EGLR_DATA_DIR, and without it
            the hub.

    Raises:
        ValueError: If the file is missing or not of the schema, the hub cannot be reached, or the number
            of problems is another; one line, naming what to do.
    """
    folder = folder or os.environ.get(FOLDER_VARIABLE)
    if source.hub is None:
        rows = read_jsonl(shipped_in / source.file)
    elif folder:
        rows = read_jsonl(Path(folder).expanduser() / source.file)
    else:
        rows = _from_hub(source)
    if len(rows) != source.rows:
        raise ValueError(f"{source.file}: {len(rows)} problems, expected {source.rows}")
    return datasets.Dataset.from_list(rows)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Reads and checks a file of problems."""
    if not path.is_file():
        raise ValueError(f"{FOLDER_VARIABLE}: no file {path}")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error.msg})") from None
        missing = _missing(row)
        if missing:
            raise ValueError(f"{path}, line {number}: no {missing}; expected at least {', '.join(REQUIRED)}")
        rows.append({**row, "id": str(row["id"]), "answer": str(row["answer"])})
    return rows


def _missing(row: Any) -> str:
    keys = row.keys() if isinstance(row, dict) else ()
    return ", ".join(key for key in REQUIRED if key not in keys)


def _from_hub(source: Source) -> list[dict[str, Any]]:
    assert source.hub is not None
    try:
        data = datasets.load_dataset(source.hub, source.config, split=source.split)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"data set {source.hub} cannot be loaded ({reason}); without the hub, set {FOLDER_VARIABLE} to a "
            f"folder that holds {source.file}"
        ) from None
    rows = []
    for number, row in enumerate(data):
        named = {**row, **{ours: row[theirs] for ours, theirs in source.columns.items() if theirs in row}}
        named.setdefault("id", number)
        missing = _missing(named)
        if missing:
            raise ValueError(f"data set {source.hub}, row {number}: no {missing}")
        rows.append({**named, "id": str(named["id"]), "answer": str(named["answer"])})
    return rows
