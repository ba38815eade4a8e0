"""Borda votes by self-certainty."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eglr_selectors.options import check_number
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import SelectFn, register_selector
from eglr_selectors.scores import signals
from eglr_selectors.selection import Selection
from eglr_selectors.voting import abstained, vote


@register_selector("self_certainty")
def self_certainty(*, power: float = 0.5) -> SelectFn:
    """Borda votes by self-certainty: the rollout of rank r among N gives (N - r + 1)^power votes.

    Kang et al. 2025, arXiv 2502.18581, equation 11; its code takes power 0.5. Rollouts without an
    answer are ranked but abstain, as there. Equally certain ones share the mean of their ranks
    (ours), so power=0 and equal certainties both give majority. Undefined without telemetry.
    """
    power = check_number("power", power, low=0)

    def choice(parsed: ParsedPool) -> Selection:
        certainty = signals(parsed, lambda telemetry: telemetry.mean_self_certainty)
        known = [i for i in range(len(parsed)) if not math.isnan(certainty[i])]
        if not any(parsed.classes[i] >= 0 for i in known):
            return abstained(parsed, certainty, "self-certainty")
        ranks = _ranks([certainty[i] for i in known])
        votes = zip(known, ((len(known) - rank + 1) ** power for rank in ranks), strict=True)
        return vote(parsed, votes)

    return choice


def _ranks(values: Sequence[float]) -> list[float]:
    """Returns each value's rank, 1 for the greatest; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=lambda i: -values[i])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            ranks[place] = (start + 1 + end) / 2
        start = end
    return ranks
