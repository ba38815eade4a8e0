"""DeepConf: confidence of a trace's weakest or last part, a filter, a weighted vote."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from eglr_selectors.options import check_count, check_name, check_number
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.pool import Telemetry
from eglr_selectors.registry import SelectFn, register_selector
from eglr_selectors.selection import Selection
from eglr_selectors.voting import abstained, vote

Measure = Literal["mean", "tail", "bottom", "lowest"]

_BOTTOM_SHARE = 0.1
_CHUNK = 2**22
"""Token confidences looked at together: 32 MiB."""


@register_selector("deepconf")
def deepconf(*, measure: Measure = "mean", keep: float = 0.9, window: int = 2048) -> SelectFn:
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
        key = ("deepconf", measure, window)
        confidence = parsed.remember(key, lambda: _confidences(parsed, measure, window))
        voters = [i for i in parsed.answered if not math.isnan(confidence[i])]
        if not voters:
            needed = "mean confidence" if measure == "mean" else "token confidences"
            return abstained(parsed, confidence, needed)
        threshold = np.percentile([confidence[i] for i in voters], (1 - keep) * 100)
        return vote(parsed, ((i, confidence[i]) for i in voters if confidence[i] >= threshold))

    return choice


def _confidences(parsed: ParsedPool, measure: str, window: int) -> list[float]:
    """Returns the confidence of every rollout, NaN where it is not known."""
    known = [rollout.telemetry or Telemetry() for rollout in parsed]
    traces = [telemetry.token_confidences for telemetry in known]
    if measure == "mean":
        means = [telemetry.mean_confidence for telemetry in known]
        return [_mean(trace) if math.isnan(mean) else mean for mean, trace in zip(means, traces, strict=True)]
    if measure == "tail":
        return [_mean(trace[-window:]) for trace in traces]
    confidences = [_mean(trace) if len(trace) <= window else math.nan for trace in traces]
    longer = sorted(
        (i for i, trace in enumerate(traces) if len(trace) > window), key=lambda i: len(traces[i])
    )
    rows = max(1, _CHUNK // max((len(trace) for trace in traces), default=1))
    for start in range(0, len(longer), rows):
        chunk = longer[start : start + rows]
        share = 0.0 if measure == "lowest" else _BOTTOM_SHARE
        for i, value in zip(chunk, _lowest_windows([traces[i] for i in chunk], window, share), strict=True):
            confidences[i] = float(value)
    return confidences


def _mean(tokens: Sequence[float]) -> float:
    return math.fsum(tokens) / len(tokens) if tokens else math.nan


def _lowest_windows(traces: Sequence[Sequence[float]], window: int, share: float) -> np.ndarray:
    """Returns the mean of each trace's lowest windows, ``[traces]``: a share of them, at least one.

    Each row is summed by itself: equal traces must get equal confidences to the last digit.
    """
    lengths = np.array([len(trace) for trace in traces])
    tokens = np.zeros((len(traces), lengths.max() + 1))
    inside = np.arange(lengths.max()) < lengths[:, None]
    tokens[:, 1:][inside] = np.fromiter(itertools.chain.from_iterable(traces), np.float64, lengths.sum())
    sums = tokens.cumsum(axis=1)
    means = (sums[:, window:] - sums[:, :-window]) / window
    means[np.arange(means.shape[1]) > (lengths - window)[:, None]] = np.inf
    counts = np.maximum(1, ((lengths - window + 1) * share).astype(int))
    means.partition(np.unique(counts - 1), axis=1)
    lowest = np.arange(counts.max()) < counts[:, None]
    return np.where(lowest, means[:, : counts.max()], 0).sum(axis=1) / counts
