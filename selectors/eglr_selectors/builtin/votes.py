"""Votes in which no rollout's confidence counts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import SelectFn, register_selector
from eglr_selectors.selection import Selection
from eglr_selectors.voting import vote


@register_selector("majority")
def majority() -> SelectFn:
    """The most frequent answer: self-consistency over classes of equal answers.

    Wang et al. 2023, arXiv 2203.11171. Rollouts without an answer abstain.
    """
    return lambda parsed: vote(parsed, ((i, 1.0) for i in parsed.answered))


@register_selector("span_balanced")
def span_balanced() -> SelectFn:
    """Majority in which all answered rollouts of a depth, L or R, share one vote (this project).

    So a depth with many rollouts or few failures has no more say than one with few of them.
    """

    def choice(parsed: ParsedPool) -> Selection:
        answered = Counter(parsed[i].cell.depth for i in parsed.answered)
        # In whole parts of one vote, so that 3 × 1/3 ties with 7 × 1/7.
        parts = math.lcm(*answered.values())
        votes = ((i, float(parts // answered[parsed[i].cell.depth])) for i in parsed.answered)
        selection = vote(parsed, votes)
        weights = {number: weight / parts for number, weight in selection.weights.items()}
        return replace(selection, weights=weights)

    return choice
