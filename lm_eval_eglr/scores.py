"""What is measured of one problem: of a selection its correctness, of the whole pool its shares and cost."""

from __future__ import annotations

import math
from collections.abc import ItemsView
from typing import Any

from eglr_selectors import ParsedPool

from lm_eval_eglr.filters import SelectedText
from lm_eval_eglr.tie_share import tie_share

POOL_METRICS = ("truncated", "no_answer", "ungraded", "cost_vs_plain", "ties")
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
    return pool_scores(result.parsed)


def selection_scores(selected: SelectedText) -> Scores:
    """Correctness of a selection: 1 or 0, NaN where the selector is not defined on this pool.

    Ungraded counts 0 and is shown apart. A pool without any answer is wrong, not undefined.
    """
    index, parsed = selected.selection.index, selected.parsed
    if not selected.selection.defined:
        return Scores({"exact_match": math.nan}, {"answer": None, "verdict": "undefined"})
    correct = index is not None and parsed.correct[index] is True
    details: dict[str, Any] = {
        "answer": selected.selection.answer,
        "verdict": "no_answer" if index is None else verdict(parsed, index),
        "no_answer": index is None or parsed.answers[index] is None,
    }
    if index is not None:
        details["truncated"] = truncated(parsed, index)
        details["rollout"] = index
        details["cell"] = str(parsed[index].cell)
    return Scores({"exact_match": float(correct)}, details)


def pool_scores(parsed: ParsedPool) -> Scores:
    """Shares over all rollouts of a pool, and what it cost over plain sampling of the same tokens.

    ``truncated`` is NaN where a backend does not say why its texts ended. ``ties`` is a share of tokens.
    """
    count = len(parsed)
    cut = [truncated(parsed, index) for index in range(count)]
    metrics = {
        "truncated": math.nan if None in cut else sum(map(bool, cut)) / count,
        "no_answer": (count - len(parsed.answered)) / count,
        "ungraded": sum(parsed.correct[i] is None for i in parsed.answered) / count,
    }
    cost = parsed.pool.cost
    if cost is not None and cost.plain_flops:
        metrics["cost_vs_plain"] = cost.flops / cost.plain_flops
        metrics["ties"] = tie_share(parsed.pool)
    details = {
        "answers": [None if answer is None else answer.text for answer in parsed.answers],
        "verdicts": [verdict(parsed, index) for index in range(count)],
        "cells": [str(rollout.cell) for rollout in parsed],
        "cut_off": cut,
    }
    return Scores(metrics, details)


def verdict(parsed: ParsedPool, index: int) -> str:
    """``correct``, ``wrong``, ``no_answer`` or ``ungraded``."""
    if parsed.answers[index] is None:
        return "no_answer"
    return {True: "correct", False: "wrong", None: "ungraded"}[parsed.correct[index]]


def truncated(parsed: ParsedPool, index: int) -> bool | None:
    """Whether the token limit cut a rollout off; ``None`` if its backend does not say."""
    rollout = parsed[index]
    return None if rollout.finish_reason == "unknown" else rollout.truncated
