"""Problems of a benchmark: from the hub, from a folder of JSONL files, or shipped with the task."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets

from lm_eval_eglr.paths import tasks_folder
from lm_eval_eglr.problems.answer_columns import ANSWER_COLUMNS
from lm_eval_eglr.problems.repairs import read_repairs, repair_rows
from lm_eval_eglr.problems.source import COLUMNS, REQUIRED, Source
from lm_eval_eglr.problems.text_lines import read_lines

FOLDER_VARIABLE = "EGLR_DATA_DIR"


def load_problems(source: Source, shipped_in: Path, folder: str | None = None) -> datasets.Dataset:
    """Loads a benchmark.

    Args:
        source: The benchmark.
        shipped_in: The folder of the task's YAML file. What is not there is looked for among our tasks, so
            that a YAML file elsewhere can include one of ours.
        folder: Folder of JSONL files; by default the environment variable EGLR_DATA_DIR, and without it
            the hub.

    Raises:
        ValueError: If the file is missing or not of the schema, the hub cannot be reached, or the number
            of problems is another; one line, naming what to do.
    """
    variable = os.environ.get(FOLDER_VARIABLE)
    given = Path(folder or variable or "").expanduser() / source.file if folder or variable else None
    if given is not None and (source.hub is not None or (folder and given.is_file())):
        if not given.is_file():
            setting = f"data_dir={folder}" if folder else f"{FOLDER_VARIABLE}={variable}"
            raise ValueError(f"{setting}: it has no file {source.file}")
        origin, rows = str(given), read_jsonl(given)
    elif source.hub is None:
        path = _shipped(source.file, shipped_in)
        origin, rows = str(path), read_jsonl(path)
    else:
        origin, rows = f"data set {source.hub}", _from_hub(source)
    twice = [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
    if twice:
        raise ValueError(f"{origin}: {len(twice)} ids appear more than once (first: {twice[0]!r})")
    if source.repairs is not None:
        rows = repair_rows(rows, read_repairs(_shipped(source.repairs, shipped_in)))
    if not rows:
        raise ValueError(f"{origin}: no problems")
    if source.rows is not None and len(rows) != source.rows:
        raise ValueError(f"{origin}: {len(rows)} problems, expected {source.rows}")
    return datasets.Dataset.from_list(rows)


def _shipped(name: str, folder: Path) -> Path:
    for path in (folder / name, tasks_folder() / name):
        if path.is_file():
            return path
    raise ValueError(f"dataset_kwargs: no file {name!r} in {folder} or among the tasks of lm-eval-eglr")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Reads and checks a file of problems.

    Raises:
        ValueError: If a line is not of the schema.
    """
    rows = []
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error.msg})") from None
        except RecursionError:
            raise ValueError(f"{path}, line {number}: not JSON that can be read (too deep)") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: not a JSON object")
        rows.append(_checked(row, f"{path}, line {number}"))
    return rows


def _checked(row: dict[str, Any], place: str) -> dict[str, Any]:
    """The row with its id and answer as text.

    Raises:
        ValueError: If a required column is missing or empty, or any has another type.
    """
    for name in REQUIRED:
        if name not in row:
            raise ValueError(f"{place}: no {name!r}; expected at least {', '.join(REQUIRED)}")
    number = isinstance(row["answer"], int | float) and not isinstance(row["answer"], bool)
    row = {**row, "id": str(row["id"]), "answer": str(row["answer"]) if number else row["answer"]}
    for name, kind in COLUMNS.items():
        if name in row and not isinstance(row[name], kind):
            raise ValueError(f"{place}: {name!r} is a {type(row[name]).__name__}, expected {kind.__name__}")
        if name in REQUIRED and not row[name].strip():
            raise ValueError(f"{place}: {name!r} is empty")
    return row


def _from_hub(source: Source) -> list[dict[str, Any]]:
    assert source.hub is not None
    try:
        data = datasets.load_dataset(source.hub, source.config, split=source.split, revision=source.revision)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"data set {source.hub} cannot be loaded ({reason}); without the hub, set {FOLDER_VARIABLE} to a "
            f"folder that holds {source.file}"
        ) from None
    return [
        _hub_row(source, row, number, f"data set {source.hub}, row {number}")
        for number, row in enumerate(data)
    ]


def _hub_row(source: Source, row: Mapping[str, Any], number: int, place: str) -> dict[str, Any]:
    """One hub row in our columns. Where the hub has no id, the row's number is one."""
    ours: dict[str, Any] = {}
    for name in COLUMNS:
        theirs = source.columns.get(name, name if name in REQUIRED else ())
        names = [theirs] if isinstance(theirs, str) else list(theirs)
        if name == "id" and name not in source.columns and name not in row:
            ours[name] = number
            continue
        for each in names:
            if each not in row:
                raise ValueError(f"{place}: no column {each!r}; it has {', '.join(row)}")
        if len(names) == 1:
            ours[name] = row[names[0]]
        elif names:
            ours[name] = _sentences([str(row[each]) for each in names])
    for step in source.reading:
        try:
            ours["answer"] = ANSWER_COLUMNS[step](ours["answer"])
        except (ValueError, TypeError) as error:
            raise ValueError(f"{place}: answer: {error}") from None
    for name in ("problem", "answer"):
        if isinstance(ours[name], str):
            ours[name] = ours[name].strip()
    return _checked(ours, place)


def _sentences(parts: list[str]) -> str:
    """Joins the parts with blanks, each but the last ended by a full stop."""
    *first, last = (part.strip() for part in parts)
    return " ".join([*(part if part.endswith(".") else f"{part}." for part in first), last])
