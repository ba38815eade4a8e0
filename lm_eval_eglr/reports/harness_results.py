"""Results files of plain lm_eval runs, as rows of our tables."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lm_eval_eglr.reports.logged_samples import belongs, read_samples
from lm_eval_eglr.reports.selector_rows import StrategyRow

# The metrics of correctness, in the order in which a task is searched for them.
METRICS = ("exact_match", "acc", "math_verify", "acc_norm", "pass@1")
USES_REFERENCE = " (uses reference)"
_NORMAL_95 = 1.959964
ONE_ROLLOUT = ("greedy", "first", "cell")
"""Selectors of ours that look at one rollout."""

A_PART = ("adaptive", "early_stop", "temperature_oracle", "layer_oracle")
"""Selectors of ours that look at a part of the pool, whose size a results file does not have."""


@dataclass(frozen=True, slots=True)
class Results:
    """What a results file has for our tables.

    Attributes:
        rows: One per task and filter.
        left_out: Tasks without a metric of correctness.
        groups: Tasks that are aggregates of others in the same file.
    """

    rows: list[StrategyRow]
    left_out: list[str]
    groups: list[str]


def read_results(path: Path) -> Results:
    """Reads lm_eval's results JSON: one row per task and filter, of the first metric of correctness.

    Outcomes by problem come from the samples file beside it, where ``--log_samples`` wrote one.

    Raises:
        ValueError: If the file is no such thing.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: neither a rollout store nor lm_eval's results JSON") from None
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise ValueError(f"{path}: not lm_eval's results JSON, it has no results")
    rows: list[StrategyRow] = []
    left_out = []
    for task, metrics in content["results"].items():
        found = _task_rows(path, content, task, _table(metrics))
        rows += found
        left_out += [] if found else [task]
    if not rows:
        raise ValueError(f"{path}: none of its tasks has one of {', '.join(METRICS)}")
    groups = [task for task, parts in _table(content.get("group_subtasks")).items() if parts]
    return Results(rows, left_out, groups)


def _task_rows(path: Path, content: dict[str, Any], task: str, metrics: dict[str, Any]) -> list[StrategyRow]:
    samples = _number(_table(_table(content.get("n-samples")).get(task)).get("effective"), 0)
    for metric in METRICS:
        found = {
            key.partition(",")[2]: float(value)
            for key, value in metrics.items()
            if key.partition(",")[0] == metric and isinstance(value, (int, float))
        }
        if not found:
            continue
        logged = read_samples(path, task, metric)
        sizes = logged["pool"].sizes if "pool" in logged else []
        size = sum(sizes) / len(sizes) if sizes else math.nan
        rows = []
        for name, value in found.items():
            rollouts = rollouts_of(content, task, name, size)
            row = _row(content, task, name, value, metrics.get(f"{metric}_stderr,{name}"), samples, rollouts)
            of_filter = logged.get(name)
            if of_filter is not None and belongs(of_filter, value):
                row = replace(row, outcomes=of_filter.outcomes, identities=of_filter.identities)
            rows.append(row)
        return rows
    return []


def _row(
    content: dict[str, Any], task: str, name: str, value: float, stderr: Any, samples: float, rollouts: float
) -> StrategyRow:
    error = _number(stderr, math.nan)
    return StrategyRow(
        model=_model(content),
        task=task,
        strategy=name.removesuffix(USES_REFERENCE) or "none",
        value=value,
        stderr=error,
        low=value - _NORMAL_95 * error,
        high=value + _NORMAL_95 * error,
        problems=int(samples),
        undefined=int(samples) if math.isnan(value) else 0,
        rollouts=rollouts,
        uses_reference=name.endswith(USES_REFERENCE) or name.startswith("pass@"),
    )


def rollouts_of(content: dict[str, Any], task: str, name: str, size: float) -> float:
    """Returns how many rollouts a row of a results file rests on; NaN where the file does not say.

    Args:
        content: The results file.
        task: The task.
        name: The row, which lm_eval calls a filter.
        size: Rollouts of a pool, where the logged samples say it.
    """
    strategy = name.removesuffix(USES_REFERENCE)
    word, _, k = strategy.partition("@")
    config = _table(_table(content.get("configs")).get(task))
    if k.isdecimal() and word in ("pass", "maj"):
        return float(k)
    if any(key.endswith(",pool") for key in _table(_table(content.get("results")).get(task))):
        if word.partition("(")[0] in ONE_ROLLOUT:
            return 1.0
        if "(" in word or word in A_PART:
            return math.nan
        return float(k) if k.isdecimal() else _grid_size(content) if math.isnan(size) else size
    repeats = _number(config.get("repeats"), math.nan)
    for entry in config.get("filter_list") or []:
        if _table(entry).get("name") == name:
            steps = [_table(step) for step in entry.get("filter") or [] if isinstance(step, dict)]
            taken = [_number(step["k"], math.nan) for step in steps if step.get("function") == "take_first_k"]
            votes = any(step.get("function") in ("majority_vote", "eglr_select") for step in steps)
            return taken[0] if taken else repeats if votes else 1.0
    return repeats


def _grid_size(content: dict[str, Any]) -> float:
    """Cells of the grid, from the run's arguments; NaN where they do not name one."""
    arguments = _table(_table(content.get("config")).get("model_args"))
    levels = arguments.get("recurrences", arguments.get("spans"))
    temperatures = arguments.get("temperatures")
    if "strategy" in arguments or not isinstance(levels, (str, int)) or not isinstance(temperatures, str):
        return math.nan
    counts = [part.partition("x")[2] or "1" for part in temperatures.split(":")]
    if not all(count.isdecimal() for count in counts):
        return math.nan
    return float(len(str(levels).split(":")) * sum(map(int, counts)))


def _table(value: Any) -> dict[str, Any]:
    """The value if it is a table; files come from strangers and from many versions."""
    return value if isinstance(value, dict) else {}


def _number(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else otherwise


def _model(content: dict[str, Any]) -> str:
    name = content.get("model_name") or _table(content.get("config")).get("model") or "unknown model"
    # Of a folder only the last part, as in the manifest of a store.
    return Path(str(name)).name if str(name).startswith(("/", ".")) else str(name)
