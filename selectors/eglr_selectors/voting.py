"""The three ways to make a selection: a vote, a chosen rollout, undefined with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from eglr_selectors.parsed import ParsedPool
from eglr_selectors.selection import Selection


def undefined(parsed: ParsedPool, reason: str, *, consumed: Sequence[int] | None = None) -> Selection:
    """Returns the selection of a strategy that cannot be applied to this pool, and says why."""
    return replace(no_answer(parsed, reason, consumed=consumed), defined=False)


def no_answer(parsed: ParsedPool, reason: str, *, consumed: Sequence[int] | None = None) -> Selection:
    """Returns the selection that has neither answer nor rollout, because the pool offers none."""
    consumed = range(len(parsed)) if consumed is None else consumed
    return Selection(None, None, rollouts=len(consumed), tokens=parsed.tokens_of(consumed), reason=reason)


def choose(parsed: ParsedPool, index: int, *, consumed: Sequence[int] | None = None) -> Selection:
    """Returns the selection of one rollout.

    Args:
        parsed: The pool.
        index: The rollout.
        consumed: The rollouts that were looked at; all by default.
    """
    consumed = range(len(parsed)) if consumed is None else consumed
    answer = parsed.answers[index]
    return Selection(
        None if answer is None else answer.text,
        index,
        rollouts=len(consumed),
        tokens=parsed.tokens_of(consumed),
        reason="" if answer is not None else f"no answer could be read from rollout {index}",
    )


def vote(
    parsed: ParsedPool,
    votes: Iterable[tuple[int, float]],
    *,
    consumed: Sequence[int] | None = None,
    largest: bool = False,
) -> Selection:
    """Returns the class of answers with the greatest total weight.

    Among classes of equal weight the one whose first voter comes first wins. Totals are exactly
    rounded sums, so the order of the voters cannot make or break a tie.

    Args:
        parsed: The pool.
        votes: Rollout and weight, in grid order. Rollouts without an answer and votes of weight NaN
            are abstentions.
        consumed: The rollouts that were looked at; all by default.
        largest: Weigh a class by its largest vote instead of the sum.
    """
    cast: dict[int, list[float]] = {}
    first: dict[int, int] = {}
    for index, weight in votes:
        number = parsed.classes[index]
        if number < 0 or math.isnan(weight):
            continue
        cast.setdefault(number, []).append(weight)
        first.setdefault(number, index)
    consumed = range(len(parsed)) if consumed is None else consumed
    if not cast:
        return _nobody_voted(parsed, consumed)
    weights = {number: max(each) if largest else math.fsum(each) for number, each in cast.items()}
    answers = {number: _text(parsed, index) for number, index in first.items()}
    winner = max(weights, key=lambda number: (weights[number], -first[number]))
    # A weight below 0 leaves no shares, nor need there be a sum: infinity less infinity is an error.
    total = math.fsum(weights.values()) if min(weights.values()) >= 0 else math.nan
    defined = 0 < total < math.inf
    return Selection(
        answers[winner],
        first[winner],
        weights,
        answers,
        weights[winner] / total if defined else math.nan,
        len(consumed),
        parsed.tokens_of(consumed),
    )


def _text(parsed: ParsedPool, index: int) -> str:
    answer = parsed.answers[index]
    assert answer is not None, "a class number without an answer"
    return answer.text


def abstained(parsed: ParsedPool, figures: Sequence[float], what: str) -> Selection:
    """Returns the selection of a vote for which no rollout with an answer has the figure it needs.

    Args:
        parsed: The pool.
        figures: One per rollout, NaN where it is not known.
        what: The figure's name.
    """
    if len(parsed) and all(map(math.isnan, figures)):
        return undefined(parsed, f"no rollout knows its {what}")
    return vote(parsed, ())


def _nobody_voted(parsed: ParsedPool, consumed: Sequence[int]) -> Selection:
    if not len(consumed):
        return undefined(parsed, "the pool is empty", consumed=consumed)
    if all(parsed.classes[i] < 0 for i in consumed):
        return no_answer(parsed, "no rollout has an answer", consumed=consumed)
    return undefined(parsed, "no rollout with an answer has a weight", consumed=consumed)
