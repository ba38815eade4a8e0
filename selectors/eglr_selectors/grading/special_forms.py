"""Forms of answers that one pattern tells: times, dates, choices, numbers in a base, congruences."""

from __future__ import annotations

import re
from collections.abc import Callable

from eglr_selectors.grading.parsed_answer import (
    Choice,
    Clock,
    Congruence,
    Digits,
    Group,
    Opaque,
    ParsedAnswer,
    Words,
)

_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d))?\s*([ap])\.?\s?m\.?", re.IGNORECASE)
_MONTHS = "january february march april may june july august september october november december"
_MONTH_NUMBERS = {name: place for place, name in enumerate(_MONTHS.split(), 1)}
_MONTH_NUMBERS |= {name[:3]: place for name, place in _MONTH_NUMBERS.items()}
_MONTH_NUMBERS["sept"] = 9
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_MONTH = rf"({'|'.join(sorted(_MONTH_NUMBERS, key=len, reverse=True))})\.?"
_DATES = (
    re.compile(rf"(?P<m>{_MONTH})\s*(?P<d>{_DAY})(?:\s*,?\s+(?P<y>\d{{4}}))?", re.IGNORECASE),
    re.compile(rf"(?P<d>{_DAY})(?:\s+of)?\s+(?P<m>{_MONTH})(?:\s*,?\s+(?P<y>\d{{4}}))?", re.IGNORECASE),
    re.compile(rf"(?P<m>{_MONTH})\s*,?\s+(?P<y>\d{{4}})", re.IGNORECASE),
)
_LETTER = r"\(\s*([A-J])\s*\)"
_CHOICE = re.compile(rf"{_LETTER}\s*[:.]?\s*(.*)|([A-J])\s*[.):]\s*(.+)", re.DOTALL)
_ANOTHER = re.compile(
    rf"[\s,;/&|]*(?:\b(?:or|and|maybe|perhaps|possibly|either)\b[\s,]*)*(?<![A-Za-z])(?={_LETTER})"
)
_BARE_CHOICES = re.compile(
    rf"(?:either\s+)?(?:{_LETTER}|[A-J])(?:\s*(?:[,;/&|]|\bor\b|\band\b)\s*(?:maybe\s+)?(?:{_LETTER}|[A-J]))+",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"(?:or|is|are|was|cannot|can't|can not|isn't|must not|does not|seems|looks|might|may|could|wrong"
    r"|incorrect|false)\b|[?]",
    re.IGNORECASE,
)
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8"}
_BASES |= {"nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16", "hex": "16"}
_DIGITS = re.compile(r"([0-9A-Fa-f]{1,200})(?:_(?:base)?|(?:in)?base)(\d{1,2}|[a-z]+)")
_CONGRUENCE = re.compile(
    r"(?:(?P<name>[^=]*?[A-Za-z][^=]*?)\s*(?:\\equiv|=)\s*)?(?P<residues>[-\d,\s]*\d(?:\s*(?:and|or)\s*-?\d+)*)"
    r"\s*\(?\s*(?:\\pmod|\\bmod|\\mod|\bmod)\b\s*\{?\s*(?P<modulus>\d{1,30})\s*\}?\s*\)?"
)
_SHORT_WORDS_TEXT = (
    "yes no odd red tan mon tue wed thu fri sat sun jan feb mar apr jun jul aug sep oct nov dec all any"
    " none amy ann ben bob dan eve ian jim joe kim lee leo mia ned pam pat ray ron roy sam sue tim tom"
    " zoe ava ali dad mom cat dog cow pig one two six ten true"
)
_SHORT_WORDS = frozenset(_SHORT_WORDS_TEXT.split())
"""Words of two or three letters that are no products: every case of them is the same answer."""


def clock(text: str) -> Clock | None:
    """Reads 7:15 pm and 3 a.m.; 19:15 alone is a ratio, and a time only beside another time."""
    if (match := _CLOCK.fullmatch(text)) is None:
        return None
    hour, minute = int(match[1]), int(match[2] or 0)
    if not 1 <= hour <= 12 or minute > 59:
        return None
    return Clock((hour % 12 + 12 * (match[3].lower() == "p")) * 60 + minute)


def date(text: str) -> Words | None:
    """Reads May 5, 2020 and 5th of May: words, so that no tolerance reaches into them."""
    if not text or not (text[0].isalpha() or text[0].isdigit()) or not any(map(str.isalpha, text)):
        return None
    for pattern in _DATES:
        if match := pattern.fullmatch(text):
            found = match.groupdict()
            month = _MONTH_NUMBERS[found["m"].casefold().rstrip(".")]
            day = re.sub(r"\D", "", found.get("d") or "")
            return Words(f"date {found.get('y') or ''}-{month}-{day and int(day)}")
    return None


def choice(text: str, parse: Callable[[str], ParsedAnswer]) -> ParsedAnswer | None:
    """Reads (B) and B. 12; several letters are several choices, and (B) is wrong is none."""
    if _BARE_CHOICES.fullmatch(text) and "(" in text:
        letters = re.findall(r"\b[A-J]\b", text)
        return Group("list", tuple(Choice(letter, None) for letter in letters))
    if (match := _CHOICE.fullmatch(text)) is None:
        return None
    letter, content = match[1] or match[3], (match[2] or match[4] or "").strip()
    starts = [found.start() for found in _ANOTHER.finditer(content)]
    if starts:
        parts = [content[: starts[0]], *(content[found.end() :] for found in _ANOTHER.finditer(content))]
        letters = [letter, *(part[part.index("(") + 1 :].strip()[0] for part in parts[1:])]
        return Group("list", tuple(Choice(each, None) for each in letters))
    if _DENIED.match(content):
        return Opaque(text, never_equal=True)
    if re.fullmatch(r"[,;/&|]?\s*(?:or|and)?\s*[A-J]", content):
        return Group("list", (Choice(letter, None), Choice(content[-1], None)))
    return Choice(letter, parse(content) if content else None)


def digits(text: str) -> Digits | None:
    """Reads 1011_2, (1011)_{two} and 1011 base 2."""
    if "_" not in text and "base" not in text:
        return None
    match = _DIGITS.fullmatch(re.sub(r"\\text|[{}()\s]", "", text))
    if match is None or not any(map(str.isdigit, match[1])):
        return None
    base = _BASES.get(match[2], match[2])
    if not base.isdigit() or (not match[1].isdigit() and int(base) < 11):
        return None
    return Digits(match[1].upper().lstrip("0"), base)


def congruence(text: str) -> Congruence | None:
    r"""Reads x \equiv 3 \pmod 7 and its spellings."""
    if "mod" not in text:
        return None
    bare = " ".join(re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).split())
    if (match := _CONGRUENCE.fullmatch(bare)) is None or int(match["modulus"]) == 0:
        return None
    modulus = int(match["modulus"])
    residues = [int(part) for part in re.findall(r"-?\d{1,30}", match["residues"])]
    name = re.sub(r"[\s{}]", "", match["name"] or "")
    return Congruence(name, frozenset(residue % modulus for residue in residues), modulus)


def short_word(text: str) -> bool:
    """Whether a text is a common word that is too short to be told from a product of letters."""
    return len(text) <= 5 and text.strip(" .!").casefold() in _SHORT_WORDS
