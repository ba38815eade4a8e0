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
    repeats = _number(_table(_table(content.get("configs")).get(task)).get("repeats"), math.nan)
    for metric in METRICS:
        found = {
            key.partition(",")[2]: float(value)
            for key, value in metrics.items()
            if key.partition(",")[0] == metric and isinstance(value, (int, float))
        }
        if not found:
            continue
        logged = read_samples(path, task, metric)
        rows = []
        for name, value in found.items():
            row = _row(content, task, name, value, metrics.get(f"{metric}_stderr,{name}"), samples, repeats)
            of_filter = logged.get(name)
            if of_filter is not None and belongs(of_filter, value):
                row = replace(row, outcomes=of_filter.outcomes, identities=of_filter.identities)
            rows.append(row)
        return rows
    return []


def _row(
    content: dict[str, Any], task: str, name: str, value: float, stderr: Any, samples: float, repeats: float
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
        rollouts=float(repeats),
        uses_reference=name.endswith(USES_REFERENCE),
    )


def _table(value: Any) -> dict[str, Any]:
    """The value if it is a table; files come from strangers and from many versions."""
    return value if isinstance(value, dict) else {}


def _number(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else otherwise


def _model(content: dict[str, Any]) -> str:
    name = content.get("model_name") or _table(content.get("config")).get("model") or "unknown model"
    # Of a folder only the last part, as in the manifest of a store.
    return Path(str(name)).name if str(name).startswith(("/", ".")) else str(name)
