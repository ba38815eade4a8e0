"""Units after a number: which words are units, which are the same, and how large they are."""

from __future__ import annotations

import re
from fractions import Fraction

_SCALES: dict[str, dict[str, str]] = {
    "length": {
        "1": "m meter metre",
        "1/1000": "mm millimeter millimetre",
        "1/100": "cm centimeter centimetre",
        "1/10": "dm decimeter decimetre",
        "1000": "km kilometer kilometre",
        "0.0254": "in inch inche",
        "0.3048": "ft foot feet",
        "0.9144": "yd yard",
        "1609.344": "mi mile",
    },
    "mass": {"1": "g gram", "1/1000": "mg milligram", "1000": "kg kilogram", "453.59237": "lb pound"},
    "time": {
        "1": "s sec second",
        "1/1000": "ms millisecond",
        "60": "min minute",
        "3600": "h hr hour",
        "86400": "day",
        "604800": "week",
    },
    "volume": {"1": "l liter litre", "1/1000": "ml milliliter millilitre", "3.785411784": "gal gallon"},
    "angle": {"1": "degree deg"},
    "dollars": {"1": "dollar usd buck", "1/100": "cent"},
    "speed": {"1": "mph", "1/1.609344": "kph kmh"},
}
_KNOWN = {
    word: (dimension, Fraction(scale) if "/1." not in scale else 1 / Fraction(scale[2:]))
    for dimension, table in _SCALES.items()
    for scale, words in table.items()
    for word in words.split()
}
_CURRENCY = {"$": "dollar", "£": "pound sterling", "€": "euro", "¥": "yen", "₹": "rupee"}
_OTHER_WORDS = (
    "and or if for where when with is are the to in sin cos tan log ln exp sqrt mod let so all any only than"
    " pm am"
)
_NOT_UNITS = frozenset(_OTHER_WORDS.split())
_PREFIX = re.compile(r"([-+]?)\s*([$£€¥₹])\s*(.+)", re.DOTALL)
_DEGREES = re.compile(r"(.*\S)\s*\^\\circ\s*(?:\\text\s*\{\s*)?([CFK])?(?:\s*\})?", re.DOTALL)
_LONE_LETTERS = frozenset("mgshLNJWVAKCTF")
_DECIMAL = re.compile(r"[-+]?[\d.,]+(?:\s*\*\s*10\s*\^\s*\{?-?\d+\}?|e[-+]?\d+)?\s*", re.IGNORECASE)
_FUNCTION = re.compile(r"(?:\b|\\)(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_PERCENT = re.compile(r"(.*\S)\s*(?:%|\\text\s*\{\s*(?:%|percent)\s*\}|\bpercent)", re.DOTALL | re.IGNORECASE)
_MARKED = re.compile(
    r"(.*?[^\s*/^_])\s*((?:\\text\s*\{[^{}]*\}\s*(?:\^\s*(?:\{\s*-?\d\s*\}|\d))?\s*[/*]?\s*)+)", re.DOTALL
)
_UNMARKED = re.compile(
    r"(.*[\d)}]|.*\\pi)\s*?( |(?<=[\d)}]))([A-Za-z]+\.?(?:[ /][A-Za-z]+)*)"
    r"(\s*\^\s*(?:\{\s*[23]\s*\}|[23]))?",
    re.DOTALL,
)


def split_unit(text: str, lone_letters: bool = False) -> tuple[str, str, bool]:
    """Splits a normalized text into value, unit (by its one name) and whether it is a percentage.

    Args:
        text: The text; without a unit it comes back as it is, with an empty unit.
        lone_letters: Whether the unmarked letter of a unit after a decimal number (12 m) is that unit
            rather than a variable.
    """
    if match := _PREFIX.fullmatch(text):
        return match[1] + match[3], _CURRENCY[match[2]], False
    if match := _PERCENT.fullmatch(text):
        return match[1], "", True
    if "circ" in text and (match := _DEGREES.fullmatch(text)) and not _FUNCTION.search(match[1]):
        return match[1], f"degree {match[2] or ''}".strip(), False
    if r"\text" in text and (match := _MARKED.fullmatch(text)):
        unit = unit_name(re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", match[2]))
        # \text{...}_x and the like are names; nothing but blanks is no unit at all.
        if unit is not None:
            return match[1], unit, False
    if text[-1:].isalpha() or text[-1:] in "23}.":
        match = _UNMARKED.fullmatch(text)
        lone = lone_letters and match is not None and bool(_DECIMAL.fullmatch(match[1]))
        if match and _is_unit(match[3].rstrip("."), lone):
            unit = unit_name(match[3].rstrip(".") + (match[4] or ""))
            if unit is not None:
                return match[1], unit, False
    return text, "", False


def unit_name(text: str) -> str | None:
    """Returns one name for the synonyms and plurals of a unit; ``None`` if the text is no unit."""
    if text.strip() in _CURRENCY:
        return _CURRENCY[text.strip()]
    text = re.sub(r"[\s{}^.~]+", " ", text.replace("/", " per ")).strip().casefold()
    words = [word for word in text.split() if word not in ("of", "the", "a", "an")]
    if not words or not all(word.isalpha() or re.fullmatch(r"-?\d", word) for word in words):
        return None
    if any(word in _NOT_UNITS for word in words):
        return None
    words = [_singular(word) for word in words]
    power = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}.get(words[0])
    if power and len(words) > 1:
        words = [*words[1:], power]
    if words[-1] in ("squared", "cubed"):
        words[-1] = "2" if words[-1] == "squared" else "3"
    if words == ["unit"] or words in (["unit", "2"], ["unit", "3"]):
        return ""
    return " ".join(_canonical(word) for word in words)


def scale(unit: str) -> tuple[str, Fraction] | None:
    """Returns the dimension of a unit and its size within it; ``None`` where that is not known."""
    words = unit.split()
    if len(words) == 2 and words[1] in ("2", "3") and words[0] in _KNOWN:
        dimension, size = _KNOWN[words[0]]
        return f"{dimension} {words[1]}", size ** int(words[1])
    return _KNOWN.get(unit)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _canonical(word: str) -> str:
    if word not in _KNOWN:
        return word
    known = _KNOWN[word]
    return next(name for name, size in _KNOWN.items() if size == known)


def _is_unit(words: str, lone_letters: bool) -> bool:
    parts = re.split(r"[ /]+", words)
    if any(part.casefold() in _NOT_UNITS for part in parts):
        return False
    first = parts[0]
    if "/" in words and all(part.casefold() in _KNOWN for part in parts):
        return True
    if len(first) == 1:
        return lone_letters and first in _LONE_LETTERS
    if first in ("sq", "cu") and len(parts) > 1:
        return True
    return len(first) > 3 or _singular(first.casefold()) in _KNOWN
