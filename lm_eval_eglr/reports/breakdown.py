"""Accuracy per subject, level or kind of fault, from the samples that ``lm_eval --log_samples`` wrote.

It reads what a run has left, so nothing is decoded again and the harness's table keeps one row per selector.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("subject", "level", "fault")
Table = dict[str, dict[str, tuple[float, int]]]
"""Value of the column to selector to mean ``exact_match`` and number of problems."""


def breakdown(samples: Iterable[Mapping[str, Any]], column: str) -> Table:
    """Groups logged samples by a column of their documents.

    Returns:
        Mean ``exact_match`` and number of problems per value and selector, values in order, then that of
        all problems under ``all``. A mean is NaN where the selector was undefined on any of the problems.

    Raises:
        ValueError: If no sample has the column.
    """
    scores: dict[tuple[int, Any], dict[str, list[float]]] = {}
    for sample in samples:
        if column not in sample["doc"] or "exact_match" not in sample:
            continue
        value = sample["doc"][column]
        score = float(sample["exact_match"])
        for key in ((0, value), (1, "all")):
            scores.setdefault(key, {}).setdefault(sample["filter"], []).append(score)
    if not scores:
        raise ValueError(f"by={column!r}: no sample has a score and that column")
    return {
        str(value) if value != "" else "none": {
            selector: (math.fsum(each) / len(each), len(each)) for selector, each in by_selector.items()
        }
        for (_, value), by_selector in sorted(scores.items())
    }


def as_markdown(table: Table, column: str) -> str:
    """The table with one line per value and one column per selector."""
    selectors = list(dict.fromkeys(selector for row in table.values() for selector in row))
    lines = [[column, "problems", *selectors], ["---", *["---:"] * (len(selectors) + 1)]]
    for value, row in table.items():
        count = max(number for _, number in row.values())
        means = [f"{row[selector][0]:.4f}" if selector in row else "" for selector in selectors]
        lines.append([value, str(count), *means])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read_samples(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Reads the samples of one or more files.

    Raises:
        ValueError: If a file is missing, holds something else, or a problem comes twice.
    """
    samples = []
    seen: set[tuple[Any, str]] = set()
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        try:
            lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold other separators
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not UTF-8 text, so no samples that lm_eval logged") from None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                sample = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error.msg})") from None
            if not isinstance(sample, dict) or not {"doc", "doc_id", "filter"} <= sample.keys():
                raise ValueError(f"{path}, line {number}: not a sample that lm_eval logged")
            key = (sample["doc_id"], sample["filter"])
            if key in seen:
                raise ValueError(f"{path}, line {number}: document {key[0]} again; name the files of one run")
            seen.add(key)
            samples.append(sample)
    return samples
