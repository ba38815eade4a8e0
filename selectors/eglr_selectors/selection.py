"""What a selector returns, and the verb that asks one for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eglr_selectors.grading import DEFAULT, Rules
from eglr_selectors.parsed import ParsedPool, parse_pool
from eglr_selectors.pool import RolloutPool


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


def select(
    pool: RolloutPool | ParsedPool,
    selector: str | Callable[[ParsedPool], Selection | int | None] = "majority",
    reference: str | None = None,
    *,
    rules: Rules = DEFAULT,
    fallbacks: Sequence[str] = (),
    **options: Any,
) -> Selection:
    """Reduces a pool to one answer.

    Args:
        pool: The pool; a parsed one is not read again.
        selector: A registered selector's name, with options if it has any
            (``"entropy_weighted(beta=2)"``), or any callable of a parsed pool.
        reference: The reference answer, which only oracles use.
        rules: When two answers are equal; a parsed pool brings its own.
        fallbacks: Where else to look for an answer; a parsed pool has looked.
        **options: The selector's options.

    Raises:
        ValueError: If the selector or an option is unknown or out of range, or if a parsed pool is
            given with another reference, or with rules or fallbacks, which come too late.
    """
    from eglr_selectors.registry import bind  # selectors are made of selections: here, to break the circle

    bound = bind(selector, **options)
    if not isinstance(pool, ParsedPool):
        pool = parse_pool(pool, reference, rules, fallbacks)
    elif rules is not DEFAULT or fallbacks:
        raise ValueError("rules, fallbacks: the pool has been parsed already; give them to parse_pool")
    elif reference is not None and reference != pool.reference:
        raise ValueError(
            f"reference={reference!r}: the pool was parsed with {pool.reference!r}; give it to parse_pool"
        )
    return bound(pool)
