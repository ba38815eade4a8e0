"""How lenient a benchmark is: small named rules, and presets made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from eglr_selectors.grading.arithmetic import exact
from eglr_selectors.grading.numeric import approximate
from eglr_selectors.grading.parsed_answer import (
    Choice,
    Conditional,
    Congruence,
    Equation,
    Named,
    ParsedAnswer,
    Value,
    Words,
)

Form = Literal["any", "integer", "number", "text"]
Percent = Literal["either", "strict"]
Units = Literal["known", "any"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as equal, checked when made.

    Attributes:
        form: What an answer may be. ``integer`` and ``number`` take exact numbers only (with thousands
            marks, units and percent signs) and never ask math-verify; ``text`` compares words.
        relative_tolerance: Largest ``|answer − gold| / |gold|`` between two numbers; 0 is exact.
        percent: ``either`` lets 50 % equal both 0.5 and 50; ``strict`` only 0.5.
        units: ``known`` takes words, currency and unit names after a number for a unit, but a single
            unmarked letter for a variable; ``any`` takes such a letter (12 m) for a unit too.
        unordered: Whether parentheses around several values are read as no order at all.
    """

    form: Form = "any"
    relative_tolerance: float = 0.0
    percent: Percent = "either"
    units: Units = "known"
    unordered: bool = False

    def __post_init__(self) -> None:
        for key, allowed in (("form", Form), ("percent", Percent), ("units", Units)):
            if getattr(self, key) not in get_args(allowed):
                raise ValueError(
                    f"{key}={getattr(self, key)!r}: expected one of {', '.join(get_args(allowed))}"
                )
        tolerance = self.relative_tolerance
        if not isinstance(tolerance, int | float) or not math.isfinite(tolerance) or not 0 <= tolerance < 1:
            raise ValueError(f"relative_tolerance={tolerance!r}: expected a number in [0, 1)")
        if not isinstance(self.unordered, bool):
            raise ValueError(f"unordered={self.unordered!r}: expected True or False")

    @classmethod
    def named(cls, name: str) -> Rules:
        """Returns a preset.

        Raises:
            ValueError: If there is none of that name.
        """
        if name not in PRESETS:
            raise ValueError(f"rules {name!r}: expected one of {', '.join(PRESETS)}")
        return PRESETS[name]

    @classmethod
    def parse(cls, text: str) -> Rules:
        """Returns the rules that a text names: a preset, fields of their own, or both.

        Args:
            text: `quantity`, `percent=strict,unordered=true`, or `quantity,percent=strict`.

        Raises:
            ValueError: If a preset or a field is unknown, or a value is not allowed.
        """
        first, *rest = [part.strip() for part in text.split(",") if part.strip()] or [""]
        rules, options = (cls(), [first, *rest]) if "=" in first else (cls.named(first), rest)
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {}
        for option in options:
            key, equals, value = (part.strip() for part in option.partition("="))
            if not equals or key not in known:
                raise ValueError(
                    f"rules: {option!r}: expected one of {', '.join(sorted(known))}, as key=value"
                )
            if key == "unordered":
                values[key] = {"true": True, "false": False}.get(value.casefold(), value)
            elif key == "relative_tolerance":
                try:
                    values[key] = float(value)
                except ValueError:
                    raise ValueError(f"relative_tolerance={value!r}: expected a number in [0, 1)") from None
            else:
                values[key] = value
        return replace(rules, **values)

    @property
    def compares_integers_exactly(self) -> bool:
        """Whether two integers that are spelt differently are unequal, whatever else holds."""
        return self.relative_tolerance == 0

    @property
    def key(self) -> str:
        """A short text that two rules share only if they are equal; part of cache keys."""
        return ";".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


DEFAULT = Rules()
PRESETS = {
    "math": DEFAULT,
    "olympiad": DEFAULT,
    "integer": Rules(form="integer"),
    "number": Rules(form="number"),
    "quantity": Rules(relative_tolerance=0.01, units="any"),
    "text": Rules(form="text"),
}
"""``math`` for MATH-500 and AMC, ``olympiad`` for OlympiadBench, ``integer`` for AIME and GSM8K,
``number`` for SVAMP, ``quantity`` for Minerva (1 % as in its paper, arXiv 2206.14858), ``text`` for
word answers."""


def has_form(parsed: ParsedAnswer, form: Form) -> bool:
    """Returns whether a parsed is an integer, a number or a text, if that is asked for."""
    if form == "any":
        return True
    if isinstance(parsed, Named | Conditional):
        return has_form(parsed.content, form)
    if isinstance(parsed, Congruence):
        return form != "text" and len(parsed.residues) == 1
    if isinstance(parsed, Equation):
        return parsed.value is not None and has_form(parsed.value, form)
    if isinstance(parsed, Choice):
        return form == "text" or (parsed.content is not None and has_form(parsed.content, form))
    if form == "text":
        return isinstance(parsed, Words | Value)
    if not isinstance(parsed, Value):
        return False
    try:
        value = exact(parsed.tree)
    except ArithmeticError:
        return form == "number" and approximate(parsed.tree) == approximate(parsed.tree)
    return form == "number" or value.denominator == 1
