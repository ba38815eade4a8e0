"""From the text of an answer to its parsed form: numbers, words, groups, intervals, equations, units."""

from __future__ import annotations

import re
from functools import lru_cache

from eglr_selectors.grading import relations
from eglr_selectors.grading.formula import (
    FUNCTIONS,
    MAX_LENGTH,
    Tree,
    UnreadableError,
    number,
    parse_formula,
)
from eglr_selectors.grading.normalize import normalize
from eglr_selectors.grading.parsed_answer import (
    Choice,
    Digits,
    Group,
    Opaque,
    ParsedAnswer,
    Ratio,
    Value,
    Words,
)
from eglr_selectors.grading.splitting import enclosed, split
from eglr_selectors.grading.units import split_unit

MAX_ITEMS = 200
MAX_NESTING = 12

_PLAIN = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,600})(?:\.\d{0,600})?")
_GROUPED = re.compile(r"([-+]?)(\d{1,3}(?:,\d{3})+(?:\.\d+)?)")
_MIXED = re.compile(r"([-+]?)\s*(\d{1,9})\s+(\d{1,9})/(\d{1,9})")
_REPEATING = re.compile(r"([-+]?)(\d{0,9})\.(\d{0,30})\\(?:overline|dot|bar)\s*\{?\s*(\d{1,30})\s*\}?")
_DIGITS = re.compile(r"([0-9A-Fa-f]{1,200})\s*_\s*\{?\s*(?:\\text\s*\{)?\s*(\w+)\s*\}?\s*\}?")
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8"}
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)\s*([ap])\.?\s?m\.?", re.IGNORECASE)
_CHOICE = re.compile(r"\(\s*([A-J])\s*\)\s*[:.]?\s*(.*)|([A-J])\s*[.):]\s*(.+)", re.DOTALL)
_RATIO = re.compile(r"[^:]+(?::[^:]+){1,4}")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_JOINER = re.compile(r"\\text\s*\{\s*,?\s*(and|or)\s*\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z .,'’\-!?:;()]*")
_VALUES_IN_TEXT = re.compile(r"\d|^\s*[A-J](?:\s*(?:,|and\b|,\s*and\b)\s*[A-J])+\s*$")
_PROSE = re.compile(r"[A-Za-z]{2,}")
_MATRIX = re.compile(
    r"\\begin \{(?:[pbB]?matrix|smallmatrix|array)\}\s*(?:\{[lcr| ]*\})?(.*?)\\end \{[A-Za-z]+\}", re.DOTALL
)
_NUMBER_SET = re.compile(r"\\mathbb\s*\{?\s*([A-Z])\s*\}?")
_LINE_END = re.compile(r"\\\\\s*(?:\[[^\]]*\])?")
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
)
_ONES_WORDS = [*_ONES.split(), "seventeen", "eighteen", "nineteen"]
_TENS_WORDS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_NUMBER_WORDS = {word: value for value, word in enumerate(_ONES_WORDS)}
_NUMBER_WORDS |= {word: 10 * value for value, word in enumerate(_TENS_WORDS, 2)}
_NUMBER_WORDS |= {
    f"{tens} {ones}": _NUMBER_WORDS[tens] + _NUMBER_WORDS[ones]
    for tens in _TENS_WORDS
    for ones in _ONES_WORDS[1:10]
}


@lru_cache(maxsize=50_000)
def parse(text: str, lone_letters: bool = False) -> ParsedAnswer:
    """Reads an answer.

    Args:
        text: The answer as it was written.
        lone_letters: Whether one unmarked letter after a number is a unit rather than a variable.

    Raises:
        RecursionError: If the host's stack is nearly full; nothing else.
    """
    stripped = text.strip()
    if len(stripped) < 600 and _PLAIN.fullmatch(stripped):
        return Value(("number", signed(stripped.replace(",", ""))))
    return Parser(lone_letters).parse(normalize(stripped), 0)


def signed(digits: str) -> object:
    """Returns the exact value of a decimal literal with an optional sign."""
    return -number(digits[1:]) if digits[0] == "-" else number(digits.lstrip("+"))


def _plain(words: str) -> str:
    return " ".join(re.sub(r"[^a-z0-9 ]", " ", re.sub(r"['’]", "", words.casefold())).split())


def _are_words(text: str, words: list[str], marked: bool) -> bool:
    """Three letters or fewer may be a product (abc), unless they are marked as upright or name a number."""
    return any(len(word) > 3 for word in words) or (marked and bool(words)) or _plain(text) in _NUMBER_WORDS


def _is_prose(text: str) -> bool:
    """Words among signs, which math-verify would take for products of letters."""
    marked = [word for found in _TEXT.findall(text) for word in _PROSE.findall(found)]
    bare = _PROSE.findall(re.sub(r"\\(?:begin|end) \{\w+\}|\\[A-Za-z]+", " ", _TEXT.sub(" ", text)))
    return len(marked) > 3 or any(len(word) > 3 and word not in FUNCTIONS for word in bare)


class Parser:
    """The rules of parsed, tried from the most particular form to the most general one."""

    def __init__(self, lone_letters: bool) -> None:
        self.lone_letters = lone_letters

    def parse(self, text: str, depth: int) -> ParsedAnswer:
        text = text.strip()
        if not text or len(text) > MAX_LENGTH or depth > MAX_NESTING:
            return Opaque(text, never_equal=True)
        for form in (self._special, self._words, self._number, self._several, self._related, self._enclosed):
            parsed = form(text, depth)
            if parsed is not None:
                break
        else:
            parsed = self._value(text)
        if isinstance(parsed, Opaque) and _is_prose(text):
            return Opaque(text, never_equal=True)
        return parsed

    def _special(self, text: str, depth: int) -> ParsedAnswer | None:
        bare = _TEXT.sub(r" \1 ", text).strip() if r"\text" in text else text
        if match := _CLOCK.fullmatch(bare):
            return Words(f"{int(match[1])}:{match[2]} {match[3].lower()}m")
        if match := _CHOICE.fullmatch(bare):
            content = match[2] or match[4]
            return Choice(match[1] or match[3], self.parse(content, depth + 1) if content else None)
        if "_" in text and (match := _DIGITS.fullmatch(text)) and match[1][:1].isdigit():
            base = _BASES.get(match[2], match[2])
            if base.isdigit():
                return Digits(match[1].upper().lstrip("0"), base)
        if text in (r"\emptyset", r"\{\}", r"\{ \}"):
            return Words("empty set")
        if match := _NUMBER_SET.fullmatch(text):
            return relations.ALL_REALS if match[1] == "R" else Words(f"number set {match[1]}")
        if text.startswith(r"\begin") and (match := _MATRIX.fullmatch(text)):
            return self._matrix(match[1], depth)
        return None

    def _words(self, text: str, depth: int) -> ParsedAnswer | None:
        marked = r"\text" in text
        if marked and (match := _TEXT.fullmatch(text)) and _VALUES_IN_TEXT.search(match[1]):
            return self.parse(match[1], depth + 1)
        bare = " ".join(_TEXT.sub(r" \1 ", text).split()) if marked else text
        words = _PROSE.findall(bare)
        if marked and not _TEXT.fullmatch(text):
            # An upright function name before its argument is no word.
            words = [word for word in words if word not in FUNCTIONS]
        if _WORDS.fullmatch(bare) and _are_words(bare, words, marked):
            parts = [part for part in re.split(r",|\band\b|\bor\b", bare) if part.strip()]
            if len(parts) > 1 and len(words) <= 3 * len(parts):
                return Group("list", tuple(self.parse(rf"\text{{{part}}}", depth + 1) for part in parts))
            plain = _plain(bare)
            if plain in ("infinity", "positive infinity"):
                return Value(relations.INFINITY)
            if plain in _NUMBER_WORDS:
                return Value(("number", number(str(_NUMBER_WORDS[plain]))))
            return Words(plain)
        if sum(len(word) > 3 for word in _PROSE.findall(re.sub(r"\\[A-Za-z]+", " ", bare))) > 3:
            return Opaque(" ".join(bare.split()), never_equal=True)
        return None

    def _number(self, text: str, depth: int) -> ParsedAnswer | None:
        rest, unit, percent = split_unit(text, self.lone_letters)
        rest = rest.strip()
        if match := _GROUPED.fullmatch(rest):
            return Value(("number", signed(match[1] + match[2].replace(",", ""))), unit, percent)
        if match := _MIXED.fullmatch(rest):
            if int(match[4]) == 0:
                return Opaque(text, never_equal=True)
            value = number(match[2]) + number(match[3]) / number(match[4])
            return Value(("number", -value if match[1] == "-" else value), unit, percent)
        if match := _REPEATING.fullmatch(rest):
            start, period = number("0." + (match[3] or "0")), match[4]
            value = number(match[2] or "0") + start
            value += number(period) / (10 ** len(match[3]) * (10 ** len(period) - 1))
            return Value(("number", -value if match[1] == "-" else value), unit, percent)
        return None

    def _several(self, text: str, depth: int) -> ParsedAnswer | None:
        text = _JOINER.sub(r" \1 ", text)
        parts = split(text, r"\bor\b")
        if len(parts) > 1:
            return relations.united([self.parse(part, depth + 1) for part in parts])
        parts = split(text, r"[,;]\s*and\b|[,;]|\band\b")
        if len(parts) == 1:
            return None
        if len(parts) > MAX_ITEMS:
            return Opaque(text, never_equal=True)
        items = [self.parse(part, depth + 1) for part in parts if part.strip()]
        return relations.listed(items) if len(items) > 1 else items[0] if items else None

    def _related(self, text: str, depth: int) -> ParsedAnswer | None:
        if len(parts := split(text, r"\\cup\b")) > 1:
            return relations.united([self.parse(part, depth + 1) for part in parts], points=True)
        return relations.related(text, lambda part: self.parse(part, depth + 1))

    def _enclosed(self, text: str, depth: int) -> ParsedAnswer | None:
        found = enclosed(text)
        if found is None:
            if ":" in text and _RATIO.fullmatch(text):
                return Ratio(tuple(self.parse(part, depth + 1) for part in text.split(":")))
            return None
        left, inner, right = found
        if left == r"\{" and len(parts := split(inner, r":|\||\\mid\b")) == 2:
            return self.parse(parts[1], depth + 1)
        parts = split(inner, r"[,;]")
        if len(parts) > MAX_ITEMS:
            return Opaque(text, never_equal=True)
        items = tuple(self.parse(part, depth + 1) for part in parts)
        if left == r"\{":
            return Group("set", tuple(relations.expanded(items)))
        if len(items) == 1:
            return items[0] if left + right in ("()", "[]", "{}") else Opaque(text)
        if left == "{":  # invisible in LaTeX
            return relations.listed(items)
        if left + right in ("()", "[]", r"\langle\rangle"):
            return Group("[]" if left == "[" else "()", items)
        if len(items) != 2:
            return Opaque(text, never_equal=True)
        return relations.interval(left, items[0], items[1], right) or Opaque(text)

    def _matrix(self, body: str, depth: int) -> ParsedAnswer:
        rows = [row for row in _LINE_END.split(body) if row.strip()]
        cells = [row.split("&") for row in rows]
        if not cells or len({len(row) for row in cells}) != 1 or len(cells) * len(cells[0]) > MAX_ITEMS:
            return Opaque(body, never_equal=True)
        items = tuple(self.parse(cell, depth + 1) for row in cells for cell in row)
        vector = len(cells) == 1 or len(cells[0]) == 1
        return Group("()" if vector else f"matrix {len(cells[0])}", items)

    def _value(self, text: str) -> ParsedAnswer:
        rest, unit, percent = split_unit(text, self.lone_letters)
        if rest != text and r"\text" in rest:
            return Opaque(text)
        if rest.count(r"\pm") + rest.count(r"\mp") == 1:
            signs = [re.sub(r"\\[pm]+\b", sign, rest.replace(r"\mp", r"\pm")) for sign in "+-"]
            trees = [self._tree(side.strip().lstrip("+")) for side in signs]
            if trees[0] is not None and trees[1] is not None:
                return Group("list", tuple(Value(tree, unit, percent) for tree in trees if tree))
        tree = self._tree(rest)
        return Opaque(text) if tree is None else Value(tree, unit, percent)

    def _tree(self, text: str) -> Tree | None:
        try:
            return parse_formula(text)
        except UnreadableError:
            return None
