"""The metrics of one problem as lm_eval wants them, with the details that its logged sample gets."""

from __future__ import annotations

from collections.abc import ItemsView
from typing import Any

from eglr_selectors import ParsedPool, correctness, pool_metrics
from eglr_selectors.metrics import POOL_METRICS, rollout_outcome, selection_outcome

from lm_eval_eglr.harness.filters import FigureText, SelectedText

METRICS = [
    {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
    *({"metric": name, "aggregation": "mean", "higher_is_better": False} for name in POOL_METRICS),
]


class Scores(dict[str, Any]):
    """Metrics of one problem, with details that go into its logged sample only.

    lm_eval aggregates what ``items()`` yields and makes a table row of each, but updates the sample with
    the whole mapping. So the details are stored as entries that ``items()`` leaves out.

    Args:
        metrics: What is aggregated.
        details: What only the sample gets.
    """

    def __init__(self, metrics: dict[str, float], details: dict[str, Any]) -> None:
        super().__init__(details | metrics)
        self._metrics = metrics

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """The metrics, without the details."""
        return self._metrics.items()

    def __reduce__(self) -> tuple[type[Scores], tuple[dict[str, float], dict[str, Any]]]:
        return (Scores, (self._metrics, {key: self[key] for key in self if key not in self._metrics}))


def score(doc: dict[str, Any], results: list[Any]) -> Scores:
    """Scores what one filter pipeline made of one document."""
    (result,) = results
    if isinstance(result, SelectedText):
        return selection_scores(result)
    if isinstance(result, FigureText):
        return Scores({"exact_match": result.value}, {})
    return pool_scores(result.parsed)


def selection_scores(selected: SelectedText) -> Scores:
    """Correctness of a selection, see :func:`eglr_selectors.correctness`."""
    selection, parsed = selected.selection, selected.parsed
    details: dict[str, Any] = {
        "answer": selection.answer if selection.defined else None,
        "verdict": selection_outcome(parsed, selection),
    }
    if selection.defined:
        index = selection.index
        details["no_answer"] = index is None or parsed.answers[index] is None
        if index is not None:
            details["truncated"] = truncated(parsed, index)
            details["rollout"] = index
            details["cell"] = str(parsed[index].cell)
    return Scores({"exact_match": correctness(parsed, selection)}, details)


def pool_scores(parsed: ParsedPool) -> Scores:
    """Shares over all rollouts of a pool and its cost, see :func:`eglr_selectors.pool_metrics`."""
    count = len(parsed)
    details = {
        "answers": [None if answer is None else answer.text for answer in parsed.answers],
        "verdicts": [rollout_outcome(parsed, index) for index in range(count)],
        "cells": [str(rollout.cell) for rollout in parsed],
        "cut_off": [truncated(parsed, index) for index in range(count)],
    }
    return Scores(pool_metrics(parsed), details)


def truncated(parsed: ParsedPool, index: int) -> bool | None:
    """Whether the token limit cut a rollout off; ``None`` if its backend does not say."""
    rollout = parsed[index]
    return None if rollout.finish_reason == "unknown" else rollout.truncated
