"""Golds written otherwise, with the same meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)")
FRACTION = re.compile(r"(-?)\\d?frac\s*\{?(\d+)\}?\s*\{?(\d+)\}?")
_BLANKS_MATTER = re.compile(r"text|mbox|where|np\.|e[-+]|\d,\\?!?\s?\d{3}")


def respellings(gold: str) -> Iterator[str]:
    """Yields the spellings that the issue asks for: other commands, blanks, brackets, a full stop, units."""
    yield re.sub(r"\\[dt]?frac", r"\\dfrac", gold)
    yield re.sub(r"\\[dt]?frac", r"\\tfrac", gold)
    yield f"{gold}."
    yield f"${gold}$"
    yield rf"\displaystyle {gold}"
    if not _BLANKS_MATTER.search(gold):
        yield re.sub(r"(?<!\\)([+\-=(),])", r" \1 ", gold)
        yield re.sub(r"(?<![\\A-Za-z])([+\-=])", r"\\,\1\\;", gold)
    if r"\left" not in gold and gold.count("(") == gold.count(")"):
        yield gold.replace("(", r"\left(").replace(")", r"\right)")
    if exact(gold) is not None:
        yield from (
            rf"{gold}\text{{ units}}",
            rf"{gold} \text{{ cm}}",
            rf"{gold}\,\mathrm{{kg}}",
            f"x = {gold}",
        )


def exact(gold: str) -> Fraction | None:
    """Reads plain decimals and fractions, without anything of the grader that is tested."""
    if NUMBER.fullmatch(gold):
        return Fraction(gold)
    if (match := FRACTION.fullmatch(gold)) and int(match[3]):
        return Fraction(int(match[1] + match[2]), int(match[3]))
    return None
