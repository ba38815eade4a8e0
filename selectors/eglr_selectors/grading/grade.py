"""Grading answers against golds: strings, exact numbers and readings first, math-verify for what is left."""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping
from functools import lru_cache

from eglr_selectors.grading.answer import Answer
from eglr_selectors.grading.comparison import Comparison, compare
from eglr_selectors.grading.formula import MAX_LENGTH
from eglr_selectors.grading.guards import guard
from eglr_selectors.grading.normalize import normalize
from eglr_selectors.grading.parser import parse
from eglr_selectors.grading.rules import DEFAULT, Rules, has_form
from eglr_selectors.grading.verdict import Outcome, UngradedError, Verdict
from eglr_selectors.grading.workers import shared_pool

CacheKey = tuple[str, str, str]

_BLANK = re.compile(r"(?<!\d) | (?!\d)")
_LIST_COMMA = re.compile(r"(?<=\d), (?=\d{3}(?!\d))")
_COMMAND_BLANK = re.compile(r"(\\[A-Za-z]+) (?![A-Za-z])")
_DIGITS = re.compile(r"0|-?[1-9]\d{0,300}")
_CORRECT = Verdict("correct", "string", "equal strings")
_WRONG_INTEGER = Verdict("wrong", "number", "different numbers")
_NO_ANSWER = Verdict("no_answer", "none", "no answer")


def grade(
    gold: str, answer: Answer | str | None, rules: Rules = DEFAULT, *, on_ungraded: str = "return"
) -> Verdict:
    """Grades one answer; see :func:`grade_many`, which is faster for many."""
    return grade_many([(gold, answer)], rules, on_ungraded=on_ungraded)[0]


def grade_many(
    pairs: Iterable[tuple[str, Answer | str | None]],
    rules: Rules = DEFAULT,
    *,
    on_ungraded: str = "return",
    cache: MutableMapping[CacheKey, Verdict] | None = None,
) -> list[Verdict]:
    """Grades (gold, answer) pairs.

    Args:
        pairs: Golds with the answers to them; a bare string is an answer, not a whole output.
        rules: What counts as equal.
        on_ungraded: ``return`` marks answers that ran out of time or memory as ungraded, ``raise`` raises.
        cache: Where verdicts are looked up and left, by gold, answer text and ``rules.key``. Ungraded ones
            are not left there, so that they are tried again.

    Raises:
        UngradedError: On request, if any answer could not be graded.
        ValueError: If ``on_ungraded`` is something else.
    """
    if on_ungraded not in ("return", "raise"):
        raise ValueError(f"on_ungraded={on_ungraded!r}: expected return or raise")
    texts = [(gold, answer.text if isinstance(answer, Answer) else answer) for gold, answer in pairs]
    verdicts: list[Verdict | None] = [
        _NO_ANSWER if text is None else _known(gold, text, rules, cache) or decide_locally(gold, text, rules)
        for gold, text in texts
    ]
    left = {(gold, text or "") for (gold, text), verdict in zip(texts, verdicts, strict=True) if not verdict}
    asked = ask_math_verify(left)
    graded = [
        verdict or asked[gold, text or ""] for (gold, text), verdict in zip(texts, verdicts, strict=True)
    ]
    if cache is not None:
        for (gold, text), verdict in zip(texts, graded, strict=True):
            if text is not None and verdict.outcome != "ungraded":
                cache[gold, text, rules.key] = verdict
    if on_ungraded == "raise" and any(verdict.outcome == "ungraded" for verdict in graded):
        raise UngradedError(graded)
    return graded


def _known(
    gold: str, text: str, rules: Rules, cache: MutableMapping[CacheKey, Verdict] | None
) -> Verdict | None:
    return None if cache is None else cache.get((gold, text, rules.key))


def decide_locally(gold: str, text: str, rules: Rules) -> Verdict | None:
    """Returns the verdict where it can be told in this process; ``None`` where math-verify has to."""
    if gold == text and text:
        return _CORRECT
    if _DIGITS.fullmatch(gold) and _DIGITS.fullmatch(text) and rules.compares_integers_exactly:
        return _WRONG_INTEGER
    try:
        return _decide_locally(gold, text, rules)
    except RecursionError:  # a host that is itself near the limit; caught here, so that it is not cached
        return Verdict("ungraded", "structure", "the host's stack is full")


@lru_cache(maxsize=200_000)
def _decide_locally(gold: str, text: str, rules: Rules) -> Verdict | None:
    if not text.strip():
        return _NO_ANSWER
    if max(len(gold), len(text)) > MAX_LENGTH:
        if gold.split() == text.split():
            return _CORRECT
        return Verdict("wrong", "hazard", "too long: only equal strings count")
    if canonical(gold) == canonical(text):
        return _CORRECT
    lone_letters = rules.units == "any"
    sides = [parse(side, lone_letters) for side in (gold, text)]
    if not has_form(sides[1], rules.form):
        return Verdict("wrong", "rule", f"not of the form {rules.form}")
    comparison = compare(sides[0], sides[1], rules)
    if comparison.equal is None:
        for side in (gold, text):
            if danger := guard(normalize(side)):
                return Verdict("wrong", "hazard", f"{danger}: only equal strings count")
        if rules.form != "any":
            return Verdict("wrong", "rule", f"not equal as {rules.form}")
        return None
    return _verdict(comparison)


def ask_math_verify(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Verdict]:
    """Asks math-verify in the workers; both orders of a pair share one job, so the result is symmetric."""
    jobs = {pair: _job(pair) for pair in pairs}
    verdicts = {job: known for job in jobs.values() if (known := _ASKED.get(job))}
    missing = sorted(set(jobs.values()) - set(verdicts))
    for job, reply in zip(missing, shared_pool().run(missing), strict=True):
        outcome: Outcome = "ungraded" if reply.equal is None else "correct" if reply.equal else "wrong"
        verdicts[job] = Verdict(outcome, "math-verify", reply.reason)
        # What ran out of time on a busy machine may well be graded the next time.
        if outcome != "ungraded":
            _ASKED[job] = verdicts[job]
    if len(_ASKED) > _MAX_ASKED:
        _ASKED.clear()
    return {pair: verdicts[job] for pair, job in jobs.items()}


_ASKED: dict[tuple[str, str], Verdict] = {}
_MAX_ASKED = 100_000


def _job(pair: tuple[str, str]) -> tuple[str, str]:
    one, other = (_COMMAND_BLANK.sub(r"\1", normalize(text)) for text in pair)
    return (one, other) if one <= other else (other, one)


@lru_cache(maxsize=50_000)
def canonical(text: str) -> str:
    """Returns the normalized text without the blanks that mean nothing (those of 2 1/2 and 1, 500 do)."""
    return _BLANK.sub("", _LIST_COMMA.sub(";", normalize(text)))


def _verdict(comparison: Comparison) -> Verdict:
    return Verdict("correct" if comparison.equal else "wrong", comparison.path, comparison.reason)
