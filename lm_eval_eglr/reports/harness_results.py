"""Results files of plain lm_eval runs, as rows of our tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lm_eval_eglr.reports.strategies import StrategyRow

# The metrics of correctness, in the order in which a task is searched for them.
METRICS = ("exact_match", "acc", "math_verify", "acc_norm", "pass@1")
_NORMAL_95 = 1.959964


def read_results(path: Path) -> list[StrategyRow]:
    """Reads lm_eval's results JSON: one row per task and filter, of the first metric of correctness.

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
    rows = [row for task, metrics in content["results"].items() for row in _task_rows(content, task, metrics)]
    if not rows:
        raise ValueError(f"{path}: none of its tasks has one of {', '.join(METRICS)}")
    return rows


def _task_rows(content: dict[str, Any], task: str, metrics: dict[str, Any]) -> list[StrategyRow]:
    samples = content.get("n-samples", {}).get(task, {}).get("effective", 0)
    repeats = content.get("configs", {}).get(task, {}).get("repeats", math.nan)
    for metric in METRICS:
        found = {
            key.partition(",")[2]: value
            for key, value in metrics.items()
            if key.partition(",")[0] == metric and isinstance(value, (int, float))
        }
        if found:
            return [
                _row(
                    content,
                    task,
                    name,
                    float(value),
                    metrics.get(f"{metric}_stderr,{name}"),
                    samples,
                    repeats,
                )
                for name, value in found.items()
            ]
    return []


def _row(
    content: dict[str, Any], task: str, name: str, value: float, stderr: Any, samples: int, repeats: float
) -> StrategyRow:
    error = float(stderr) if isinstance(stderr, (int, float)) else math.nan
    return StrategyRow(
        model=_model(content),
        task=task,
        strategy=name.removesuffix(" (uses reference)"),
        value=value,
        stderr=error,
        low=value - _NORMAL_95 * error,
        high=value + _NORMAL_95 * error,
        problems=int(samples),
        rollouts=float(repeats),
        uses_reference=name.endswith(" (uses reference)"),
    )


def _model(content: dict[str, Any]) -> str:
    name = content.get("model_name") or content.get("config", {}).get("model") or "unknown model"
    return str(name)
