"""Grading answers against golds: :mod:`.checks` first, math-verify for what is left."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping

from eglr_selectors.grading.answer import Answer
from eglr_selectors.grading.checks import decide_locally
from eglr_selectors.grading.math_verify_queue import POOL_SECONDS, ask_math_verify, checked_seconds
from eglr_selectors.grading.rules import DEFAULT, Rules
from eglr_selectors.grading.verdict import UngradedError, Verdict

CacheKey = tuple[str, str, str]

_NO_ANSWER = Verdict("no_answer", "none", "no answer")


def grade(
    gold: str,
    answer: Answer | str | None,
    rules: Rules = DEFAULT,
    *,
    on_ungraded: str = "return",
    seconds: float = POOL_SECONDS,
) -> Verdict:
    """Grades one answer; see :func:`grade_many`, which is faster for many."""
    return grade_many([(gold, answer)], rules, on_ungraded=on_ungraded, seconds=seconds)[0]


def grade_many(
    pairs: Iterable[tuple[str, Answer | str | None]],
    rules: Rules = DEFAULT,
    *,
    on_ungraded: str = "return",
    cache: MutableMapping[CacheKey, Verdict] | None = None,
    seconds: float = POOL_SECONDS,
) -> list[Verdict]:
    """Grades (gold, answer) pairs.

    Args:
        pairs: Golds with the answers to them; a bare string is an answer, not a whole output.
        rules: What counts as equal.
        on_ungraded: ``return`` marks answers that ran out of time or memory as ungraded, ``raise`` raises.
        cache: Where verdicts are looked up and left, by gold, answer text and ``rules.key``. Ungraded ones
            are not left there; :data:`~.math_verify_queue.undecided` remembers those.
        seconds: How long math-verify may be at the answers to one gold, all of them together; what is left
            then is ungraded. 0 never asks it.

    Raises:
        UngradedError: On request, if any answer could not be graded.
        ValueError: If ``on_ungraded`` or ``seconds`` is something else.
    """
    if on_ungraded not in ("return", "raise"):
        raise ValueError(f"on_ungraded={on_ungraded!r}: expected return or raise")
    checked_seconds(seconds)
    texts = [(gold, answer.text if isinstance(answer, Answer) else answer) for gold, answer in pairs]
    verdicts: list[Verdict | None] = [
        _NO_ANSWER if text is None else _known(gold, text, rules, cache) or decide_locally(gold, text, rules)
        for gold, text in texts
    ]
    left = {(gold, text or "") for (gold, text), verdict in zip(texts, verdicts, strict=True) if not verdict}
    golds = {gold for gold, _ in left}
    asked = ask_math_verify({pair: (pair[0],) for pair in left}, seconds, golds) if left else {}
    graded = [
        verdict or asked[gold, text or ""] for (gold, text), verdict in zip(texts, verdicts, strict=True)
    ]
    if cache is not None:
        for (gold, text), verdict in zip(texts, graded, strict=True):
            if text is not None and verdict.outcome != "ungraded":
                cache[gold, text, rules.key] = verdict
    told = [verdict.told(gold, text, rules) for (gold, text), verdict in zip(texts, graded, strict=True)]
    if on_ungraded == "raise" and any(verdict.outcome == "ungraded" for verdict in told):
        raise UngradedError(told)
    return told


def _known(
    gold: str, text: str, rules: Rules, cache: MutableMapping[CacheKey, Verdict] | None
) -> Verdict | None:
    return None if cache is None else cache.get((gold, text, rules.key))


def alike(one: str, other: str, rules: Rules) -> Verdict | None:
    """Returns the local verdict on two answers of which neither is the gold: equal if either way round is.

    ``m + n = 113`` answers a gold of 113, not the other way round; for a vote both say 113.
    """
    verdict = decide_locally(one, other, rules)
    if verdict is not None and not verdict.correct and ("=" in one or "=" in other):
        return decide_locally(other, one, rules)
    return verdict
