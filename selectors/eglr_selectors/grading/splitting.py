"""Splitting a formula where no bracket is open."""

from __future__ import annotations

import re
from functools import lru_cache

_BRACKET = re.compile(
    r"\\[{}]|\\(?:[lr]angle|[lr]floor|[lr]ceil)\b|\\begin \{[^{}]*\}|\\end \{[^{}]*\}|[()\[\]{}]"
)
_OPENING = frozenset(["(", "[", "{", r"\{", r"\langle", r"\lfloor", r"\lceil"])
_WHOLE = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\langle": r"\rangle"}

_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])|(?<![\d.,])\d{1,3}(?:,\d{3})+(?=,\s)")
_LIST_MARK = re.compile(r",\s|;|\band\b|\bor\b")
_FRENCH = re.compile(r"(?:^|(?<=\\cup ))\s*[\[\]][^\[\]]*[\[\]]\s*(?=$|\\cup)")


def split(text: str, separator: str) -> list[str]:
    """Splits at the matches of a pattern outside all brackets; ``[0, 1)`` counts as a pair."""
    masked = masked_text(text)
    parts, start = [], 0
    for match in re.finditer(separator, masked):
        parts.append(text[start : match.start()])
        start = match.end()
    return [*parts, text[start:]]


@lru_cache(maxsize=1000)
def masked_text(text: str) -> str:
    """Returns the text with everything inside brackets replaced by ``_``, of the same length."""
    masked: list[str] = []
    level, start = 0, 0
    for match in _BRACKET.finditer(text):
        between = text[start : match.start()]
        masked.append(between if level == 0 else "_" * len(between))
        masked.append("_" * len(match[0]))
        start = match.end()
        opens = match[0] in _OPENING or match[0].startswith(r"\begin")
        level = level + 1 if opens else max(0, level - 1)
    between = text[start:]
    masked.append(between if level == 0 else "_" * len(between))
    return "".join(masked)


def enclosed(text: str) -> tuple[str, str, str] | None:
    """Returns opening, inside and closing bracket of a text that one pair of brackets encloses."""
    level = 0
    first = ""
    start = end = 0
    for match in _BRACKET.finditer(text):
        if not first:
            if match.start() != 0 or match[0] not in _WHOLE:
                return None
            first, start = match[0], match.end()
        level += 1 if match[0] in _OPENING or match[0].startswith(r"\begin") else -1
        if level == 0:
            end = match.start()
            if match.end() != len(text):
                return None
            closing = match[0]
            mixed = {first, closing} <= {"(", ")", "[", "]"}
            if not mixed and _WHOLE[first] != closing:
                return None
            return first, text[start:end], closing
    return None


def without_thousands(text: str) -> str:
    """Takes thousands marks out of a list whose own commas stand before blanks: `1,500, 2,500`."""
    if not _LIST_MARK.search(text):
        return text
    return _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)


def _turned(interval: re.Match[str]) -> str:
    text = interval[0]
    left, right = text.lstrip()[0], text.rstrip()[-1]
    if (left, right) == ("[", "]"):
        return text
    inner = text.strip()[1:-1]
    return f"{'(' if left == ']' else '['}{inner}{')' if right == '[' else ']'}"


def with_turned_brackets(text: str) -> str:
    """Writes ]0, 1[ as (0, 1): a bracket that turns away from an end leaves it out."""
    return _FRENCH.sub(_turned, text)
