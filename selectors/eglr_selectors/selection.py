"""``Selection``: the answer that a selector chose, with its votes, cost and reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Selection:
    """The answer that a selector chose from a pool.

    Attributes:
        answer: The answer's text; ``None`` if nothing was chosen or the chosen rollout has none.
        index: The chosen rollout, counted in the pool that was given; ``None`` if undefined.
        weights: Weight of every class of answers that got any vote, by class number; empty for
            selectors that do not vote.
        answers: Text of each of these classes: that of its first voter.
        confidence: The winner's share of all weight; NaN where nothing voted.
        rollouts: How many rollouts were looked at.
        tokens: How many tokens they have; ``None`` if that is not known.
        uses_reference: Whether the reference answer was used: an oracle, not a strategy.
        reason: Why there is no answer; empty if there is one.
        defined: Whether the strategy could be applied at all. A pool in which no rollout has an answer
            is a failure of a defined strategy; missing telemetry, cells or references are not.
    """

    answer: str | None
    index: int | None
    weights: Mapping[int, float] = field(default_factory=dict)
    answers: Mapping[int, str] = field(default_factory=dict)
    confidence: float = math.nan
    rollouts: int = 0
    tokens: int | None = None
    uses_reference: bool = False
    reason: str = ""
    defined: bool = True
