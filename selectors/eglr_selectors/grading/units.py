"""Units after a number: where they begin, which are the same, and how large they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from eglr_selectors.grading.number_words import CHANGING
from eglr_selectors.grading.unit_table import COUNTED, TRAILING, UNMARKED, Unit, physical

LONE_LETTERS = frozenset("mgshLlNJWVAKCTFHΩ")
"""Single upright letters that are units: the others, such as `\\mathrm{i}`, are names."""

_CURRENCY = r"[$£€¥₹₩]|\b(?:US|U\.S\.|C|A)\s?[$]|\b(?:USD|EUR|GBP|JPY|CNY|INR|RMB|CAD|AUD|Rs\.?)(?![A-Za-z])"
_PREFIX = re.compile(
    rf"([-+]?)\s*(?:\\text\s*\{{\s*)?({_CURRENCY})\s*(?:\}})?\s*([-+]?[\d.(\\].*)", re.DOTALL | re.IGNORECASE
)
_DEGREES = re.compile(r"(.*\S)\s*\^\\circ\s*(?:\\text\s*\{\s*)?([CFK])?(?:\s*\})?", re.DOTALL)
_TEMPERATURES = {"C": "celsius", "F": "fahrenheit", "K": "kelvin"}
_TEMPERATURE = re.compile(r"\bdeg(?:rees?)?\.?\s+([CFK])(?:elsius|ahrenheit|elvin)?\b", re.IGNORECASE)
_FUNCTION = re.compile(r"(?:\b|\\)(?:sin|cos|tan|cot|sec|csc|cis)(?![a-z])")
_PERCENT = re.compile(
    r"(.*[\d)}.])\s*(?:%|\\text\s*\{\s*(?:%|per\s?cents?|pct)\.?\s*\}|(?:per\s?cents?|pct)\b\.?)",
    re.DOTALL | re.IGNORECASE,
)
_DECIMAL = re.compile(r"[-+]?[\d.,]+(?:\s*\*\s*10\s*\^\s*\{?-?\d+\}?|e[-+]?\d+)?\s*", re.IGNORECASE)
_MAY_END_A_UNIT = re.compile(r"[A-Za-z})\].$£€¥₹₩¢\"²³Å\d\s]|[^\x00-\x7f]")
_BEGINNING = re.compile(
    r"(?<=[\d)}\].])\s*(?=[A-Za-z\"\[(]|[^\x00-\x7f]|\\(?:text|mu|Omega|frac|circ)\b|[$£€¥])|\s+(?=[A-Za-z\"])"
    r"|\s*(?=\\text\b|\\frac \{\s*\\text)|(?<=\\pi)\s+(?=[A-Za-z])"
)
_ENDS_A_VALUE = re.compile(r"(?:[\d)}\].!]|\\pi|[A-Za-z])\s*$")
_MARKUP = re.compile(r"\\text\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_FRACTION = re.compile(r"\\frac\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_PART = re.compile(r"([A-Za-zμΩÅåö¢\"$£€¥₹₩]+|[^\x00-\x7f]+)\.?|(\^?\s*\{?\s*-?\d\s*\}?)|([/*()·])|\s+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_CHANGING_CJK = re.compile(r"[负負不非零倍半万亿億萬千百或是以上下超]|分之")


@dataclass(frozen=True, slots=True)
class Tail:
    """A text without what stands behind or before its number.

    Attributes:
        rest: The value.
        unit: The unit; empty for none.
        percent: Whether a percent sign follows.
    """

    rest: str
    unit: str = ""
    percent: bool = False


@lru_cache(maxsize=20_000)
def split_unit(text: str, lone_letters: bool = False) -> Tail:
    """Splits a normalized text into its value and its unit.

    Args:
        text: The text; without a unit it comes back as it is.
        lone_letters: Whether the unmarked letter of a unit after a decimal number (12 m) is that unit
            rather than a variable.
    """
    if match := _PREFIX.fullmatch(text):
        inner = split_unit(match[3], lone_letters)
        if inner.unit and re.search(r"[$£€¥₹₩]", match[3]):
            return Tail(text)
        return Tail(match[1] + inner.rest, unit_of(match[2], True) or "")
    if match := _PERCENT.fullmatch(text):
        return Tail(match[1], percent=True)
    if "circ" in text and (match := _DEGREES.fullmatch(text)) and not _FUNCTION.search(match[1]):
        return Tail(match[1], unit_of(_TEMPERATURES.get(match[2], "degree"), True) or "")
    last = text[-1:]
    if not last or (last.isdigit() and "^" not in text) or not _MAY_END_A_UNIT.match(last):
        return Tail(text)
    for start in _beginnings(text):
        value, behind = text[:start].rstrip(), text[start:].strip()
        if value.endswith("*"):  # 5 \cdot \text{m}
            value = value[:-1].rstrip()
        if not value or not _ENDS_A_VALUE.search(value):
            continue
        marked = "\\text" in behind or not behind[0].isascii() or behind[0] in "[("
        lone = lone_letters and bool(_DECIMAL.fullmatch(value))
        if (value[-1].isalpha() and not value.endswith(r"\pi")) and not marked:
            continue
        glued = start > 0 and not text[start - 1].isspace() and behind[:1].isalpha() and behind[0].isascii()
        if (unit := unit_of(behind, marked, lone, glued)) is not None:
            return Tail(value, unit)
    return Tail(text)


def _beginnings(text: str) -> Iterator[int]:
    """Yields where a unit may begin, the longest one first."""
    seen = set()
    for match in _BEGINNING.finditer(text):
        if match.end() not in seen:
            seen.add(match.end())
            yield match.end()


@lru_cache(maxsize=20_000)
def unit_of(text: str, marked: bool, lone: bool = False, glued: bool = False) -> str | None:
    """Reads a unit.

    Args:
        text: What stands behind a number.
        marked: Whether it is written as words (upright, or in signs that no variable has), so that short
            words are units too.
        lone: Whether a single letter is a unit although it is not marked.
        glued: Whether it follows the number without a blank, where only signs of units are units.

    Returns:
        One text for all spellings of the unit; empty for a unit without a dimension (`units`), ``None``
        if the text is no unit.
    """
    if text[:1] in "[(" and text[-1:] in "])" and text[:1] + text[-1:] in ("[]", "()"):
        text, bracketed = text[1:-1].strip(), True
    else:
        bracketed = False
    bare = _FRACTION.sub(r"(\1)/(\2)", text)
    upright = frozenset(word for found in _MARKUP.findall(bare) for word in re.findall(r"[A-Za-z]+", found))
    bare = _MARKUP.sub(r" \1 ", bare).replace("\\mu ", "μ").replace("\\Omega ", "Ω").replace("\\Omega", "Ω")
    if not lone and re.search(r"μ\s*[A-Za-z]", bare) and "text" not in text:
        return None  # the letters of a product: \mu m g
    bare = re.sub(r"μ\s+(?=[A-Za-z])", "μ", bare.replace("\\mu", "μ"))
    bare = _TEMPERATURE.sub(lambda scale: _TEMPERATURES[scale[1].upper()], bare)
    bare = re.sub(r"(?<=[kMmGn])\s+Ω", "Ω", bare)
    if "\\" in bare or not bare.strip():
        return None
    # m/s is a unit in any type, m alone may be a variable.
    allowed = None if lone or "/" in bare else upright
    found = _physical(bare, marked, allowed)
    if found is None and not (glued and not marked) and not (bracketed and len(bare.strip()) == 1):
        found = _counted(bare, marked, allowed)
    return None if found is None else _name(found)


def _name(unit: Unit) -> str:
    dimension, size = unit
    return "" if not dimension and size == 1 else f"{' '.join(f'{n}^{p}' for n, p in dimension)}@{size}"


def same_dimension(one: str, other: str) -> tuple[Fraction, Fraction] | None:
    """Returns the sizes of two units of one dimension; ``None`` if their dimensions differ."""
    (left, size), (right, other_size) = one.rsplit("@", 1), other.rsplit("@", 1)
    return (Fraction(size), Fraction(other_size)) if left == right else None


def _physical(text: str, marked: bool, upright: frozenset[str] | None) -> Unit | None:
    """Reads products, quotients and powers of units: kg m/s^2, J/(kg K), square metres, miles per hour."""
    powers: dict[str, int] = {}
    size = Fraction(1)
    sign, next_power, group = 1, 1, 0
    last: Unit | None = None
    last_sign = 1
    position = 0
    pending = False
    text = re.sub(r"\bper\b", "/", text)
    text = re.sub(r"\b(ft|foot|in|inch|lb|pound|kilowatt|newton)-(?=[a-z])", r"\1 ", text)
    while position < len(text):
        match = _PART.match(text, position)
        if match is None:
            return None
        position = match.end()
        word, power, mark = match[1], match[2], match[3]
        if word:
            lower = word.casefold()
            if lower in ("squared", "cubed") and last:
                powers, size = _times(powers, size, last, last_sign * (1 if lower == "squared" else 2))
                last = None
                continue
            if lower in ("square", "sq", "cubic", "cu"):
                next_power, pending = (2 if lower.startswith("sq") else 3), True
                continue
            if lower in ("unit", "units"):
                last, next_power, pending = ((), Fraction(1)), 1, False
                continue
            if lower == "a" and sign == -1 and not pending:
                continue
            if len(word) == 1 and word.isascii() and word.isalpha():
                if word not in LONE_LETTERS or (
                    upright is not None and word not in upright and not powers and not pending
                ):
                    return None
            elif not marked and word.isascii() and word.isalpha() and len(word) <= 3 and word not in UNMARKED:
                return None
            unit = physical(word)
            if unit is None:
                return None
            powers, size = _times(powers, size, unit, sign * next_power)
            last, last_sign = unit, sign
            next_power, pending = 1, False
            if not group:
                sign = 1
        elif power and last is not None:
            exponent = int(re.sub(r"[^-\d]", "", power))
            if exponent == 0:
                return None
            if "^" not in power and not marked:
                return None
            powers, size = _times(powers, size, last, last_sign * (exponent - 1))
            last = None
        elif power:
            return None
        elif mark == "/":
            sign = -1
        elif mark == "(":
            group += 1
        elif mark == ")":
            group -= 1
            sign = 1
    if pending or group:
        return None
    return tuple(sorted((name, power) for name, power in powers.items() if power)), size


def _times(
    powers: dict[str, int], size: Fraction, unit: Unit, exponent: int
) -> tuple[dict[str, int], Fraction]:
    result = dict(powers)
    for name, power in unit[0]:
        result[name] = result.get(name, 0) + power * exponent
    return result, size * unit[1] ** exponent


def _counted(text: str, marked: bool, upright: frozenset[str] | None) -> Unit | None:
    """Reads what people count: `72 clips`, `5 cups of flour`, `18 eggs per day`, `12 years old`."""
    if _CJK.fullmatch(text.strip()):
        words = text.strip()
        for length in range(min(3, len(words)), 0, -1):
            known = physical(words[:length])
            if known is not None or words[:length] in COUNTED:
                return None if _CHANGING_CJK.search(words[length:]) else (known or ((), Fraction(1)))
        return None
    parts = re.split(r"\bper\b|/|\beach\b(?=\s+\w)", text)
    powers: dict[str, int] = {}
    size = Fraction(1)
    for place, part in enumerate(parts):
        unit = _physical(part.strip(), marked or len(parts) > 1, upright) if part.strip() else None
        unit = unit or _noun(part)
        if unit is None:
            return None
        powers, size = _times(powers, size, unit, 1 if place == 0 else -1)
    return tuple(sorted((name, power) for name, power in powers.items() if power)), size


def _noun(text: str) -> Unit | None:
    words = re.sub(r"[.,'’]", "", text).casefold().split()
    while len(words) > 1 and words[-1] in TRAILING:
        words.pop()
    if words and words[-1] in TRAILING and all(word in TRAILING for word in words):
        return (), Fraction(1)
    if any(not word.replace("-", "").isalpha() for word in words) or any(word in CHANGING for word in words):
        return None
    if "of" in words:
        measured = words.index("of")
        if measured == 0 or len(words) - measured > 4:
            return None
        return _noun(" ".join(words[:measured]))
    words = [word for word in words if word not in ("the", "a", "an")]
    if not 0 < len(words) <= 3:
        return None
    head = words[-1]
    unit = physical(head) if len(head) > 2 else None
    if unit is not None:
        return unit
    if head in COUNTED or (len(head) > 3 and head.endswith("s") and not head.endswith(("ss", "us", "is"))):
        return ((_singular(head), 1),), Fraction(1)
    return None


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
