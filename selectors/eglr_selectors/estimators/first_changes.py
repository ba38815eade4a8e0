"""Where greedy text of another depth first parts from plain greedy decoding, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eglr_selectors.parsed import ParsedPool


@dataclass(frozen=True, slots=True)
class FirstChange:
    """The first token that another depth changes in the greedy text of a problem.

    Until there the two texts have one prefix, so depth alone decided the token, or rounding where the two
    were decoded in other batches.

    Attributes:
        problem: Place of the problem.
        token: Place of the token, counted from 0.
        share: ``token`` over the tokens of the plain text.
        plain: Token that plain greedy decoding writes; ``None`` where its text ends there.
        other: Token that the other depth writes.
        before: Whether the plain text is correct.
        after: Whether the other depth's text is correct.
        same_answer: Whether the two have equal answers, or neither has one.
    """

    problem: int
    token: int
    share: float
    plain: int | None
    other: int | None
    before: bool
    after: bool
    same_answer: bool


def first_changes(plain: Sequence[ParsedPool], other: Sequence[ParsedPool]) -> list[FirstChange | None]:
    """Returns the first change of every problem; ``None`` where the texts are equal.

    Args:
        plain: Pools whose first rollout is plain greedy decoding.
        other: Pools of the same problems whose first rollout is the other text.

    Raises:
        ValueError: If the two are not of equally many problems, or a rollout has no tokens.
    """
    found: list[FirstChange | None] = []
    for place, (a, b) in enumerate(zip(plain, other, strict=True)):
        mine, theirs = a[0].tokens, b[0].tokens
        if not mine or not theirs:
            raise ValueError(f"problem {place}: the tokens of its rollouts are not known")
        token = next(
            (i for i, (x, y) in enumerate(zip(mine, theirs, strict=False)) if x != y),
            min(len(mine), len(theirs)),
        )
        if token == len(mine) == len(theirs):
            found.append(None)
            continue
        joined = {a.answers[0] and a.answers[0].text, b.answers[0] and b.answers[0].text}
        found.append(
            FirstChange(
                place,
                token,
                token / len(mine),
                mine[token] if token < len(mine) else None,
                theirs[token] if token < len(theirs) else None,
                a.correct[0] is True,
                b.correct[0] is True,
                len(joined) == 1,
            )
        )
    return found
