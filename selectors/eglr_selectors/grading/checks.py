r"""The order of checks: read this first.

A pair of a gold and an answer goes down :data:`CHECKS`; the first check that can tell decides. What none of
them can tell is asked of math-verify (:mod:`.math_verify_queue`). Two checks have tables of their own:

- an answer is *parsed* as the first form of :data:`.parser.FORMS` that fits: times and choices, matrices and
  systems, numbers in words, words, numbers, several values, relations, brackets, formulas;
- two parsed answers are *compared* by the first row of :data:`.comparison.COMPARISONS` that has both kinds.

``grade(gold, answer).explain()`` and ``eglr grade GOLD ANSWER`` print what each check said of one pair.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from eglr_selectors.grading.comparison import compare
from eglr_selectors.grading.formula import MAX_LENGTH
from eglr_selectors.grading.guards import guard
from eglr_selectors.grading.normalize import normalize
from eglr_selectors.grading.parsed_answer import ParsedAnswer
from eglr_selectors.grading.parser import parse
from eglr_selectors.grading.rules import Rules, has_form
from eglr_selectors.grading.verdict import Verdict

_BLANK = re.compile(r"(?<!\d) | (?!\d)")
_LIST_COMMA = re.compile(r"(?<=\d), (?=\d{3}(?!\d))")
_DIGITS = re.compile(r"0|-?[1-9]\d{0,300}")
# Controls but tabs and line ends, and the marks that turn the direction of writing.
_DAMAGED = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_EQUAL = Verdict("correct", "string", "equal strings")
_DIFFERENT_INTEGERS = Verdict("wrong", "number", "different numbers")
_NO_ANSWER = Verdict("no_answer", "none", "no answer")


@dataclass(frozen=True, slots=True)
class Check:
    """One step of grading.

    Attributes:
        name: What it looks at, in words.
        decide: Returns a verdict on (gold, answer, rules), or ``None`` to go on.
    """

    name: str
    decide: Callable[[str, str, Rules], Verdict | None]


def _same_text(gold: str, answer: str, rules: Rules) -> Verdict | None:
    return _EQUAL if gold == answer and answer else None


def _two_integers(gold: str, answer: str, rules: Rules) -> Verdict | None:
    plain = _DIGITS.fullmatch(gold) and _DIGITS.fullmatch(answer)
    return _DIFFERENT_INTEGERS if plain and rules.compares_integers_exactly else None


def _no_answer(gold: str, answer: str, rules: Rules) -> Verdict | None:
    return None if answer.strip() else _NO_ANSWER


def _too_long(gold: str, answer: str, rules: Rules) -> Verdict | None:
    if max(len(gold), len(answer)) <= MAX_LENGTH:
        return None
    if gold.split() == answer.split():
        return _EQUAL
    return Verdict("wrong", "hazard", "too long: only equal strings count")


def _damaged(gold: str, answer: str, rules: Rules) -> Verdict | None:
    if _DAMAGED.search(answer) or _DAMAGED.search(gold):
        return Verdict("wrong", "hazard", "control characters: only equal strings count")
    return None


def _same_when_normalized(gold: str, answer: str, rules: Rules) -> Verdict | None:
    return _EQUAL if canonical(gold) == canonical(answer) else None


def _form(gold: str, answer: str, rules: Rules) -> Verdict | None:
    if has_form(parsed(answer, rules), rules.form):
        return None
    return Verdict("wrong", "rule", f"not of the form {rules.form}")


def _compared(gold: str, answer: str, rules: Rules) -> Verdict | None:
    found = compare(parsed(gold, rules), parsed(answer, rules), rules)
    if found.equal is None:
        return None
    return Verdict("correct" if found.equal else "wrong", found.path, found.reason)


def _dangerous(gold: str, answer: str, rules: Rules) -> Verdict | None:
    for side in (gold, answer):
        if danger := guard(normalize(side)):
            return Verdict("wrong", "hazard", f"{danger}: only equal strings count")
    return None


def _exact_form(gold: str, answer: str, rules: Rules) -> Verdict | None:
    return None if rules.form == "any" else Verdict("wrong", "rule", f"not equal as {rules.form}")


CHECKS: tuple[Check, ...] = (
    Check("the same text", _same_text),
    Check("two plain integers", _two_integers),
    Check("is there an answer", _no_answer),
    Check("length", _too_long),
    Check("control characters", _damaged),
    Check("the same text once normalized", _same_when_normalized),
    Check("the form that the rules ask for", _form),
    Check("comparison of what both say", _compared),
    Check("guards: what must not reach sympy", _dangerous),
    Check("rules that never ask math-verify", _exact_form),
)
"""What is looked at, in this order; what none of them can tell is asked of math-verify."""
_QUICK = tuple(check.decide for check in CHECKS[:2])
"""The first checks cost less than a look into the cache of the others."""
_OTHERS = tuple(check.decide for check in CHECKS[2:])


def decide_locally(gold: str, answer: str, rules: Rules) -> Verdict | None:
    """Returns the verdict where it can be told in this process; ``None`` where math-verify has to."""
    for check in _QUICK:
        if (verdict := check(gold, answer, rules)) is not None:
            return verdict
    try:
        return _decide(gold, answer, rules)
    except RecursionError:  # a host that is itself near the limit; caught here, so that it is not cached
        return Verdict("ungraded", "structure", "the host's stack is full")


@lru_cache(maxsize=200_000)
def _decide(gold: str, answer: str, rules: Rules) -> Verdict | None:
    for check in _OTHERS:
        if (verdict := check(gold, answer, rules)) is not None:
            return verdict
    return None


def parsed(text: str, rules: Rules) -> ParsedAnswer:
    """Returns what a text says under the rules."""
    return parse(text, rules.units == "any")


@lru_cache(maxsize=50_000)
def canonical(text: str) -> str:
    """Returns the normalized text without the blanks that mean nothing (those of 2 1/2 and 1, 500 do)."""
    return _BLANK.sub("", _LIST_COMMA.sub(";", normalize(text)))
