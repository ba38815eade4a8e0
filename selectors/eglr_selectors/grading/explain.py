"""Why a verdict is what it is: how both sides were read, which check decided, and what the others said."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction
from typing import Any

from eglr_selectors.grading.arithmetic import exact, symbols
from eglr_selectors.grading.checks import CHECKS, parsed
from eglr_selectors.grading.comparison import row_name
from eglr_selectors.grading.grade import grade
from eglr_selectors.grading.normalize import normalize
from eglr_selectors.grading.numeric import approximate
from eglr_selectors.grading.parsed_answer import (
    Choice,
    Clock,
    Conditional,
    Congruence,
    Digits,
    Equation,
    Group,
    Named,
    Opaque,
    ParsedAnswer,
    Ratio,
    RealSet,
    Value,
    Words,
)
from eglr_selectors.grading.parser import form_of
from eglr_selectors.grading.rules import DEFAULT, Rules
from eglr_selectors.grading.verdict import Explanation, Verdict, explain_by, shortened


def explain(
    gold: str, answer: str | None, rules: Rules = DEFAULT, verdict: Verdict | None = None
) -> Explanation:
    """Explains the verdict on one answer.

    Args:
        gold: The gold.
        answer: The answer, as it was graded; ``None`` for none.
        rules: The rules that it was graded by.
        verdict: The verdict, if it is known; else the answer is graded now.
    """
    verdict = verdict or grade(gold, answer, rules)
    if answer is None:
        return Explanation(
            verdict, _side(gold, rules), ("", "", ""), "nothing to compare", (), _changed(rules)
        )
    steps: list[tuple[str, str]] = []
    for check in CHECKS:
        found = check.decide(gold, answer, rules)
        if found is not None:
            steps.append((check.name, f"{found.outcome}: {found.reason}"))
            break
        steps.append((check.name, "goes on"))
    else:
        steps.append(("math-verify, in a worker", f"{verdict.outcome}: {verdict.reason}"))
    row = row_name(parsed(gold, rules), parsed(answer, rules))
    return Explanation(verdict, _side(gold, rules), _side(answer, rules), row, tuple(steps), _changed(rules))


def _changed(rules: Rules) -> str:
    found = [(field.name, getattr(rules, field.name)) for field in fields(rules)]
    return ", ".join(f"{name}={value}" for name, value in found if value != getattr(DEFAULT, name))


def _side(text: str, rules: Rules) -> tuple[str, str, str]:
    said = described(parsed(text, rules))
    return text, normalize(text), f"{shortened(said)} ({form_of(text, rules.units == 'any')})"


def described(answer: ParsedAnswer) -> str:
    """Returns in words what a parsed answer says."""
    if isinstance(answer, Value):
        unit = f", in {_unit(answer.unit)}" if answer.unit else ""
        return f"{_value(answer.tree)}{' per cent' if answer.percent else ''}{unit}"
    if isinstance(answer, Words):
        return f"the words {answer.text!r}"
    if isinstance(answer, Choice):
        return f"choice {answer.letter}" + (
            f", which says {described(answer.content)}" if answer.content else ""
        )
    if isinstance(answer, Named):
        return f"{answer.name}, which is {described(answer.content)}"
    if isinstance(answer, Equation):
        return "an equation" + (f" that states {described(answer.value)}" if answer.value else "")
    if isinstance(answer, Conditional):
        return f"{described(answer.content)}, on a condition"
    if isinstance(answer, Group):
        kinds = {"list": "values in any order", "set": "a set", "cases": "cases", "branch": "a branch"}
        kind = kinds.get(
            answer.kind, f"a {answer.kind}" if answer.kind.startswith("matrix") else "values in order"
        )
        return f"{kind}: {'; '.join(described(item) for item in answer.items)}"
    if isinstance(answer, RealSet):
        return f"a set of numbers of {len(answer.pieces)} interval{'s' * (len(answer.pieces) != 1)}"
    if isinstance(answer, Digits):
        return f"the digits {answer.digits} in base {answer.base}"
    if isinstance(answer, Ratio):
        return f"a ratio: {' : '.join(described(part) for part in answer.parts)}"
    if isinstance(answer, Clock):
        return f"the time {answer.minutes // 60}:{answer.minutes % 60:02}"
    if isinstance(answer, Congruence):
        return f"{sorted(answer.residues)} modulo {answer.modulus}"
    assert isinstance(answer, Opaque)
    return "no mathematics, or false" if answer.never_equal else "something that only math-verify may read"


def _value(tree: Any) -> str:
    names = sorted(symbols(tree))
    if names:
        return f"a formula in {', '.join(name.lstrip(chr(92)) for name in names)}"
    try:
        value: Fraction = exact(tree)
    except ArithmeticError:
        number = approximate(tree)
        return f"a number, about {number:.6g}" if number == number else "a constant"
    return f"the number {value}"


def _unit(unit: str) -> str:
    dimension, size = unit.rsplit("@", 1)
    names = dimension.replace("^1", "")
    return names if size == "1" else f"{names} times {float(Fraction(size)):.6g}"


explain_by(explain)
