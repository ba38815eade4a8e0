"""Strategies that look at rollouts in grid order and stop early."""

from __future__ import annotations

import math
from collections import Counter

from eglr_selectors.options import check_count, check_number
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import SelectFn, register_selector
from eglr_selectors.selection import Selection
from eglr_selectors.voting import vote


@register_selector("adaptive")
def adaptive(*, threshold: float = 0.95) -> SelectFn:
    """Stops when the leading answer is settled: P(its share of the two leaders > 1/2) >= threshold.

    Adaptive-Consistency, Aggarwal et al. 2023, arXiv 2305.11860, with its Beta criterion and its
    threshold of 0.95: four equal answers settle it. Rollouts without an answer are consumed and
    abstain. Rollouts and tokens in the selection are those consumed.
    """
    threshold = check_number("threshold", threshold, low=0.5, high=1)

    def choice(parsed: ParsedPool) -> Selection:
        counts: Counter[int] = Counter()
        consumed = 0
        for number in parsed.classes:
            consumed += 1
            if number >= 0:
                counts[number] += 1
                if settled(counts) >= threshold:
                    break
        return _majority_of(parsed, range(consumed))

    return choice


@register_selector("early_stop")
def early_stop(*, window: int = 5) -> SelectFn:
    """Consumes windows of rollouts and stops at the first whose answers are all equal: that answer.

    Early-Stopping Self-Consistency, Li et al. 2024, arXiv 2401.10480; its experiments take 5 (MATH)
    and 8. Windows do not overlap; one with a rollout without an answer does not stop. If none stops,
    the majority of the whole pool wins.
    """
    window = check_count("window", window, low=1)

    def choice(parsed: ParsedPool) -> Selection:
        for start in range(0, len(parsed) - window + 1, window):
            inside = parsed.classes[start : start + window]
            if inside[0] >= 0 and len(set(inside)) == 1:
                return vote(
                    parsed,
                    ((i, 1.0) for i in range(start, start + window)),
                    consumed=range(start + window),
                )
        return _majority_of(parsed, range(len(parsed)))

    return choice


def _majority_of(parsed: ParsedPool, consumed: range) -> Selection:
    return vote(parsed, ((i, 1.0) for i in consumed), consumed=consumed)


def settled(counts: Counter[int]) -> float:
    """Returns P(p > 1/2) for p ~ Beta(a + 1, b + 1), a and b the counts of the two leading answers.

    With whole a and b that is P(Binomial(a + b + 1, 1/2) <= a), a sum of binomial coefficients.
    """
    (_, a), (_, b) = (*counts.most_common(2), (-1, 0))[:2]
    n = a + b + 1
    return sum(math.comb(n, j) for j in range(a + 1)) / 2**n
