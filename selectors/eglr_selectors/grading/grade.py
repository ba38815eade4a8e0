"""Grading answers against golds, and sorting answers into equivalence classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache

from eglr_selectors.grading.answer import Answer
from eglr_selectors.grading.rules import DEFAULT, Rules
from eglr_selectors.grading.verdict import UngradedError, Verdict

_NUMBER = re.compile(r"-?\d{1,300}(?:\.\d{1,300})?")
_HAZARD = re.compile(r"\^.*\^|\*\*|\d{5}|!|binom|operatorname|matrix|\\sum|\\prod|\\int|_")


def grade(
    gold: str, answer: Answer | str | None, rules: Rules = DEFAULT, *, on_ungraded: str = "return"
) -> Verdict:
    """Grades one answer; see :func:`grade_many`."""
    return grade_many([(gold, answer)], rules, on_ungraded=on_ungraded)[0]


def grade_many(
    pairs: Iterable[tuple[str, Answer | str | None]], rules: Rules = DEFAULT, *, on_ungraded: str = "return"
) -> list[Verdict]:
    """Grades (gold, answer) pairs."""
    verdicts = [_grade(gold, answer.text if isinstance(answer, Answer) else answer) for gold, answer in pairs]
    if on_ungraded == "raise" and any(verdict.outcome == "ungraded" for verdict in verdicts):
        raise UngradedError(verdicts)
    return verdicts


def classes(answers: Sequence[Answer | str | None], rules: Rules = DEFAULT) -> list[int]:
    """Numbers the equivalence classes of the answers by first appearance; -1 for no answer."""
    texts = [answer.text if isinstance(answer, Answer) else answer for answer in answers]
    leaders: list[str] = []
    home: dict[str, str] = {}
    for text in sorted({text for text in texts if text is not None}):
        home[text] = next((lead for lead in leaders if _grade(lead, text).correct), text)
        if home[text] == text:
            leaders.append(text)
    numbers: dict[str, int] = {}
    return [-1 if text is None else numbers.setdefault(home[text], len(numbers)) for text in texts]


def classes_many(groups: Iterable[Sequence[Answer | str | None]], rules: Rules = DEFAULT) -> list[list[int]]:
    """Classes of several groups of answers, as :func:`classes` gives for each."""
    return [classes(group, rules) for group in groups]


@lru_cache(maxsize=100_000)
def _grade(gold: str, text: str | None) -> Verdict:
    if text is None:
        return Verdict("no_answer", "none", "no answer")
    left, right = (re.sub(r"\s|\\[,!;]|\\left|\\right|\$|\.$", "", side) for side in (gold, text))
    left, right = (side.replace("dfrac", "frac").replace("tfrac", "frac") for side in (left, right))
    if left == right:
        return Verdict("correct", "string", "equal strings")
    if _NUMBER.fullmatch(left) and _NUMBER.fullmatch(right):
        equal = Fraction(left) == Fraction(right)
        return Verdict("correct" if equal else "wrong", "number", "exact numbers")
    if len(right) > 200 or _HAZARD.search(right):
        return Verdict("wrong", "hazard", "only equal strings count")
    from math_verify import parse, verify

    sides = [parse(rf"\boxed{{{side}}}", parsing_timeout=None) for side in (gold, text)]
    equal = verify(*sides, timeout_seconds=None)
    return Verdict("correct" if equal else "wrong", "math-verify", "math-verify")
