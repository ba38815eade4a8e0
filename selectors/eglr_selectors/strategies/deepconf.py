"""DeepConf: confidence of a trace's weakest or last part, a filter, a weighted vote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from eglr_selectors.options import check_count, check_name, check_number
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.pool import Rollout
from eglr_selectors.registry import Choice, register_selector
from eglr_selectors.selection import Selection
from eglr_selectors.voting import no_votes, vote

Measure = Literal["mean", "tail", "bottom", "lowest"]

_BOTTOM_SHARE = 0.1


@register_selector("deepconf")
def deepconf(*, measure: Measure = "mean", keep: float = 0.9, window: int = 2048) -> Choice:
    """Keeps the most confident share of the rollouts with an answer; they vote with their confidence.

    Fu et al. 2025, arXiv 2508.15260, and its authors' offline code: a rollout is kept if its
    confidence reaches the (1 - keep) quantile. ``measure`` is a trace's confidence: ``mean`` of all
    tokens, ``tail`` of the last ``window`` tokens, ``bottom`` for the mean of the lowest tenth of all
    sliding windows, ``lowest`` for the lowest window. All but ``mean`` need token confidences, which
    only traced decoding keeps; without them it is undefined.
    """
    check_name("measure", measure, get_args(Measure))
    keep = check_number("keep", keep, low=0, high=1, above=True)
    window = check_count("window", window, low=1)

    def choice(parsed: ParsedPool) -> Selection:
        confidence = parsed.remember(
            ("deepconf", measure, window), lambda: [_confidence(each, measure, window) for each in parsed]
        )
        voters = [i for i in parsed.answered if not math.isnan(confidence[i])]
        if not voters:
            needed = "mean confidence" if measure == "mean" else "token confidences"
            return no_votes(parsed, confidence, needed)
        threshold = np.percentile([confidence[i] for i in voters], (1 - keep) * 100)
        return vote(parsed, ((i, confidence[i]) for i in voters if confidence[i] >= threshold))

    return choice


def _confidence(rollout: Rollout, measure: str, window: int) -> float:
    if rollout.telemetry is None:
        return math.nan
    tokens = rollout.telemetry.token_confidences
    if measure == "mean" and not math.isnan(rollout.telemetry.mean_confidence):
        return rollout.telemetry.mean_confidence
    if not tokens:
        return math.nan
    if measure == "tail":
        return math.fsum(tokens[-window:]) / min(window, len(tokens))
    if measure == "mean" or len(tokens) <= window:
        return math.fsum(tokens) / len(tokens)
    means = _window_means(tokens, window)
    lowest = 1 if measure == "lowest" else max(1, int(len(means) * _BOTTOM_SHARE))
    return float(np.partition(means, lowest - 1)[:lowest].mean())


def _window_means(tokens: Sequence[float], window: int) -> np.ndarray:
    """Returns the means of all windows of consecutive tokens, ``[tokens - window + 1]``."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(tokens, dtype=np.float64))])
    return (sums[window:] - sums[:-window]) / window
