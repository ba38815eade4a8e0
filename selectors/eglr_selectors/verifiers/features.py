"""What a learned verifier knows of a rollout: its telemetry, its cell, and how its pool agrees with it."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from eglr_selectors.parsed import ParsedPool
from eglr_selectors.pool import Rollout, Telemetry

_UNKNOWN = Telemetry()

TELEMETRY = (
    "mean_entropy",
    "mean_logprob",
    "mean_confidence",
    "mean_self_certainty",
    "converged_share",
)
OWN = ("log_tokens", "log_characters", "truncated", "span", "temperature", "gated_share", "recursion_share")
AGREEMENT = (
    "answered",
    "agreement",
    "agreement_rank",
    "span_agreement",
    "answers_in_pool",
    "answered_share",
)
RELATIVE = tuple(f"{name}_in_pool" for name in TELEMETRY[:4])
FEATURES = (*TELEMETRY, *OWN, *AGREEMENT, *RELATIVE)
"""Names of the columns of :func:`features`. ``agreement`` is the share of all answers equal to this
one, ``agreement_rank`` the number of answers with more votes, ``span`` the level of the depth
axis, L or R, ``span_agreement`` the share of such levels at which the answer occurs, ``*_in_pool`` the
difference from the pool's mean."""


def features(parsed: ParsedPool) -> np.ndarray:
    """Returns one row per rollout, ``[rollouts, features]``; NaN where a figure is not known."""
    if not len(parsed):
        return np.empty((0, len(FEATURES)))
    telemetry = np.array([_telemetry(rollout) for rollout in parsed], dtype=np.float64)
    own = np.array([_own(rollout) for rollout in parsed], dtype=np.float64)
    known = ~np.isnan(telemetry[:, :4])
    counts = np.maximum(known.sum(axis=0), 1)
    means = np.where(known, telemetry[:, :4], 0).sum(axis=0) / counts
    return np.hstack([telemetry, own, _agreement(parsed), telemetry[:, :4] - means])


def _telemetry(rollout: Rollout) -> list[float]:
    telemetry = rollout.telemetry or _UNKNOWN
    return [getattr(telemetry, name) for name in TELEMETRY]


def _own(rollout: Rollout) -> list[float]:
    tokens, cell = len(rollout.tokens), rollout.cell
    telemetry = rollout.telemetry
    counted = tokens > 0 and telemetry is not None
    return [
        math.log(tokens) if tokens else math.nan,
        math.log1p(len(rollout.text)),
        math.nan if rollout.finish_reason == "unknown" else float(rollout.truncated),
        cell.depth,
        math.nan if cell.temperature is None else cell.temperature,
        telemetry.gated_tokens / tokens if counted and telemetry else math.nan,
        telemetry.recursions / tokens if counted and telemetry else math.nan,
    ]


def _agreement(parsed: ParsedPool) -> np.ndarray:
    votes = Counter(number for number in parsed.classes if number >= 0)
    spans: dict[int, set[int]] = {}
    for rollout, number in zip(parsed, parsed.classes, strict=True):
        spans.setdefault(number, set()).add(rollout.cell.depth)
    all_spans = len({rollout.cell.depth for rollout in parsed})
    answered = sum(votes.values())
    # A rollout without an answer agrees with nothing: zeros, and `answered` tells why.
    rows = {
        number: [
            1.0,
            count / answered,
            float(sum(other > count for other in votes.values())),
            len(spans[number]) / all_spans,
        ]
        for number, count in votes.items()
    }
    rows[-1] = [0.0, 0.0, float(len(votes)), 0.0]
    shared = [float(len(votes)), answered / len(parsed)]
    return np.array([[*rows[number], *shared] for number in parsed.classes], dtype=np.float64)
