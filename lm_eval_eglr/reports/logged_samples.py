"""Outcomes by problem of plain lm_eval runs, from what ``--log_samples`` wrote beside their results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm_eval_eglr.reports.selector_rows import Identity

SAME = 1e-6
"""How near the mean of logged outcomes must be to the result that they are said to make."""


@dataclass(frozen=True, slots=True)
class Logged:
    """Outcomes of one task under one filter.

    Attributes:
        outcomes: The metric by document.
        identities: Which document that was.
        sizes: How many rollouts its pool had, in the row of a pool.
    """

    outcomes: dict[int, float] = field(default_factory=dict)
    identities: dict[int, Identity] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)


def read_samples(results: Path, task: str, metric: str) -> dict[str, Logged]:
    """Reads a task's samples, by filter; empty if there is no file of them.

    Args:
        results: The results file; its samples lie beside it and bear its date.
        task: The task.
        metric: Which metric the outcomes are of.

    Raises:
        ValueError: If a line of the file is no sample.
    """
    date = results.stem.rpartition("_")[2]
    path = results.with_name(f"samples_{task}_{date}.jsonl")
    if not date or not path.is_file():
        return {}
    found: dict[str, Logged] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            sample = json.loads(line)
            number_of_document, name = int(sample["doc_id"]), str(sample["filter"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}, line {number}: not a sample as lm_eval logs it") from None
        logged = found.setdefault(name, Logged())
        logged.outcomes[number_of_document] = _number(sample.get(metric))
        logged.identities[number_of_document] = _identity(sample)
        if isinstance(cells := sample.get("cells"), list):
            logged.sizes.append(len(cells))
    return found


def belongs(logged: Logged, value: float) -> bool:
    """Whether these outcomes are those whose mean the results file has; a file may be of another run."""
    values = [outcome for outcome in logged.outcomes.values() if not math.isnan(outcome)]
    if len(values) < len(logged.outcomes) or not values:
        return False
    return abs(math.fsum(values) / len(values) - value) < SAME


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (bool, int, float)) else math.nan


def _identity(sample: Mapping[str, Any]) -> Identity:
    target = sample.get("target")
    digest = sample.get("doc_hash")
    return Identity(None if digest is None else str(digest), None if target is None else str(target).strip())
