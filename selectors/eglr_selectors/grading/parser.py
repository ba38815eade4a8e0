r"""From the text of an answer to its parsed form: numbers, words, groups, intervals, equations, units.

The forms are tried in the order of :data:`FORMS`, from the most particular one to the most general.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from eglr_selectors.grading import relations
from eglr_selectors.grading.formula import MAX_LENGTH, parse_formula
from eglr_selectors.grading.formula_tokens import (
    FUNCTIONS,
    MeaninglessError,
    UnreadableError,
    is_named,
    number,
)
from eglr_selectors.grading.normalize import normalize
from eglr_selectors.grading.number_words import spoken
from eglr_selectors.grading.parsed_answer import (
    Choice,
    Conditional,
    Equation,
    Group,
    Opaque,
    ParsedAnswer,
    Ratio,
    Value,
    Words,
)
from eglr_selectors.grading.remarks import taken_apart, without_front
from eglr_selectors.grading.special_forms import choice, clock, congruence, date, digits, short_word
from eglr_selectors.grading.splitting import enclosed, split, with_turned_brackets, without_thousands
from eglr_selectors.grading.units import split_unit, unit_of

MAX_ITEMS = 200
MAX_NESTING = 12

_PLAIN = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,600})(?:\.\d{0,600})?")
_GROUPED = re.compile(r"([-+]?)(\d{1,3}(?:,\d{3})+(?:\.\d+)?)")
_MIXED = re.compile(r"([-+]?)\s*(\d{1,9})\s+(\d{1,9})/(\d{1,9})")
_REPEATING = re.compile(r"([-+]?)(\d{0,9})\.(\d{0,60})\\(?:overline|dot|bar)\s*\{?\s*(\d{1,60})\s*\}?")
_CALL = re.compile(rf"(?:{'|'.join(sorted(FUNCTIONS, key=len, reverse=True))})\s*\(")
_BARE_FUNCTIONS = frozenset(["arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "sqrt"])
_RATIO = re.compile(r"[^:]+(?::[^:]+){1,4}")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_JOINER = re.compile(r"\\text\s*\{\s*,?\s*(and|or)\s*\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z .,'’\-!?:;()]*")
_VALUES_IN_TEXT = re.compile(r"\d|^\s*[A-J](?:\s*(?:,|and\b|,\s*and\b)\s*[A-J])+\s*$")
_PROSE = re.compile(r"[A-Za-z]{2,}")
_MATRIX = re.compile(
    r"\\begin \{([pbB]?matrix|smallmatrix|array)\}\s*(?:\{[lcr| ]*\})?(.*?)\\end \{\1\}", re.DOTALL
)
_ROWS = re.compile(
    r"\\begin \{((?:[dr]?cases|aligned|align|gathered|split|eqnarray)\*?)\}(.*?)\\end \{\1\}"
    r"|\\\{\s*\\begin \{(array|matrix|aligned|gathered)\}\s*(?:\{[lcr| ]*\})?(.*?)\\end \{\3\}\s*\.?",
    re.DOTALL,
)
_BRANCH = re.compile(r",?\s*\\text\s*\{[\s,]*(?:if|for|when|otherwise|else)\b|&", re.IGNORECASE)
_NUMBER_SET = re.compile(r"\\mathbb\s*\{?\s*([A-Z])\s*\}?")
_LINE_END = re.compile(r"\\\\\s*(?:\[[^\]]*\])?")


@lru_cache(maxsize=50_000)
def parse(text: str, lone_letters: bool = False) -> ParsedAnswer:
    """Parses an answer.

    Args:
        text: The answer as it was written.
        lone_letters: Whether one unmarked letter after a number is a unit rather than a variable.

    Raises:
        RecursionError: If the host's stack is nearly full; nothing else.
    """
    stripped = text.strip()
    if len(stripped) < 600 and _PLAIN.fullmatch(stripped):
        return Value(("number", signed(stripped.replace(",", ""))))
    parser = Parser(lone_letters)
    normalized = normalize(stripped)
    if len(normalized) > MAX_LENGTH:
        return Opaque(normalized, never_equal=True)
    return parser.whole(without_front(normalized.replace(r"\approx ", "= ")))


def signed(text: str) -> object:
    """Returns the exact value of a decimal literal with an optional sign."""
    return -number(text[1:]) if text[0] == "-" else number(text.lstrip("+"))


def _plain(words: str) -> str:
    """Returns the words of a text answer in lower case and in the singular, without punctuation."""
    found = re.sub(r"[^a-z0-9 ]", " ", re.sub(r"['’]", "", words.casefold())).split()
    return " ".join(
        word[:-1] if len(word) > 4 and word.endswith("s") and word[-2] not in "sui" else word
        for word in found
    )


def _are_words(words: list[str], marked: bool) -> bool:
    """Three letters or fewer may be a product (abc), unless they are marked as upright or a common word."""
    return any(len(word) > 3 for word in words) or (marked and bool(words))


def _is_prose(text: str) -> bool:
    """Words among signs, which math-verify would take for products of letters."""
    marked = [word for found in _TEXT.findall(text) for word in _PROSE.findall(found)]
    bare = _PROSE.findall(re.sub(r"\\(?:begin|end) \{\w+\}|\\[A-Za-z]+", " ", _TEXT.sub(" ", text)))
    return len(marked) > 3 or any(len(word) > 3 and word not in _BARE_FUNCTIONS for word in bare)


class Parser:
    """The forms of answers and the texts that have them."""

    def __init__(self, lone_letters: bool) -> None:
        self.lone_letters = lone_letters

    def whole(self, text: str) -> ParsedAnswer:
        """Parses a whole answer: what stands behind it (a condition, a remark) is taken apart first."""
        found = taken_apart(text)
        if found is None:
            return Opaque(text, never_equal=True)
        if not found.condition:
            return self.parse(text, 0)
        if found.in_brackets:
            return self._remarked(text, found.content, found.condition)
        content = self.parse(found.content, 0)
        if isinstance(content, Words | Opaque | Choice):
            return self.parse(text, 0)
        return self._conditional(content, found.condition)

    def _remarked(self, text: str, before: str, remark: str) -> ParsedAnswer:
        bare = re.sub(r"\\text\s*\{|[{}]", " ", remark).strip()
        content = self.parse(before, 0)
        if isinstance(content, Value) and (unit := unit_of(f"({bare})", True)) is not None:
            return replace(content, unit=content.unit or unit)  # 5 (cm)
        if isinstance(content, Opaque):
            return self.parse(text, 0)
        told = spoken(bare)
        if told is not None:
            # "5 (five)" says one number twice, "5 (million)" another one.
            same = not told[1] and isinstance(content, Value) and relations.all_same([content.tree, told[0]])
            return content if same else Opaque(text, never_equal=True)
        if spoken(f"1 {bare}") is not None:
            return Opaque(text, never_equal=True)
        return self._conditional(content, remark)

    def _conditional(self, content: ParsedAnswer, condition: str) -> ParsedAnswer:
        relation = relations.related(condition, lambda part: self.parse(part, 1))
        if isinstance(relation, Opaque | Equation):
            relation = None
        words = re.sub(r"\\text|[\s{}.,]", "", condition).casefold()
        return Conditional(content, words, relation)

    def parse(self, text: str, depth: int) -> ParsedAnswer:
        """Parses a part of an answer; brackets are counted by ``depth``."""
        text = text.strip()
        if not text or len(text) > MAX_LENGTH or depth > MAX_NESTING:
            return Opaque(text, never_equal=True)
        for _, form in FORMS:
            parsed = form(self, text, depth)
            if parsed is not None:
                break
        else:
            parsed = Opaque(text)
        if isinstance(parsed, Opaque) and _is_prose(text):
            return Opaque(text, never_equal=True)
        return parsed

    def special(self, text: str, depth: int) -> ParsedAnswer | None:
        """`7:15 pm`, `(B) 12`, `1011_2`, `3 (mod 7)`, the empty set, sets of numbers."""
        bare = _TEXT.sub(r" \1 ", text).strip() if r"\text" in text else text
        found: ParsedAnswer | None = clock(bare) or date(bare) or digits(text) or congruence(text)
        found = found or choice(bare, lambda content: self.parse(content, depth + 1))
        if found:
            return found
        if text in (r"\emptyset", r"\{\}", r"\{ \}"):
            return Words("empty set")
        if match := _NUMBER_SET.fullmatch(text):
            return relations.ALL_REALS if match[1] == "R" else Words(f"number set {match[1]}")
        return None

    def rows(self, text: str, depth: int) -> ParsedAnswer | None:
        """Matrices, vectors, systems of equations, and definitions by cases."""
        if r"\begin" not in text:
            return None
        if match := _MATRIX.fullmatch(text):
            return self._matrix(match[2], depth)
        if match := _ROWS.fullmatch(text):
            body = match[2] if match[2] is not None else match[4]
            rows = [row.strip() for row in _LINE_END.split(body) if row.strip()]
            if len(rows) > MAX_ITEMS:
                return Opaque(text, never_equal=True)
            kind = (match[1] or match[3]).rstrip("*")
            by_cases = kind.endswith("cases") or kind in ("array", "matrix")
            aligned = all("=" in row.split("&")[0] or re.search(r"&\s*=", row) for row in rows)
            if by_cases and any(map(_BRANCH.search, rows)) and not aligned:
                return Group("cases", tuple(self._branch(row, depth) for row in rows))
            parts = [self.parse(row.replace("&", "").strip(" ,;"), depth + 1) for row in rows]
            return relations.listed(parts) if len(parts) > 1 else parts[0] if parts else None
        return None

    def _branch(self, row: str, depth: int) -> ParsedAnswer:
        value, *rest = re.split(_BRANCH, row, maxsplit=1)
        condition = row[len(value) :].replace("&", " ") if rest else ""
        words = " ".join(_TEXT.sub(r" \1 ", condition).split())
        words = re.sub(r"^(?:,?\s*(?:if|for|when)\b)+\s*", "", words).strip(" ,.;")
        if words in ("", "otherwise", "else"):
            parsed: ParsedAnswer = Words(words and "otherwise")
        else:
            parsed = self.parse(words, depth + 1)
        return Group("branch", (self.parse(value.strip(" ,;"), depth + 1), parsed))

    def number_in_words(self, text: str, depth: int) -> ParsedAnswer | None:
        """`5 million dollars`, `three and a half`, `6 minus two`."""
        bare = " ".join(_TEXT.sub(r" \1 ", text).split()) if r"\text" in text else text
        bare = re.sub(
            r"(?<=\d)(?=[百千万亿億萬](?![克米瓦卡赫焦]))|(?<=[百千万亿億萬])(?=[^\x00-\x7f])(?![克米瓦卡赫焦])",
            " ",
            bare,
        )
        if not re.fullmatch(r"[$£€¥₹]?\s*(?:[^\\{}^_=<>|*/()\[\]]+)", bare):
            return None
        tail = split_unit(bare) if bare[:1] in "$£€¥₹" else None
        found = spoken(bare[1:].strip() if tail else bare)
        if found is None:
            return None
        tree, rest = found
        unit = unit_of(rest, True) if rest else ""
        if unit is None:
            return None
        return Value(tree, unit or (tail.unit if tail else ""))

    def words(self, text: str, depth: int) -> ParsedAnswer | None:
        """`east`, `yes`, lists of words; values that stand in upright text are parsed again without it."""
        marked = r"\text" in text
        if marked and (match := _TEXT.fullmatch(text)) and _VALUES_IN_TEXT.search(match[1]):
            return self.parse(match[1], depth + 1)
        bare = " ".join(_TEXT.sub(r" \1 ", text).split()) if marked else text
        words = _PROSE.findall(bare)
        if marked and not _TEXT.fullmatch(text):
            # An upright function name before its argument is no word.
            words = [word for word in words if word not in FUNCTIONS]
        if short_word(bare):
            return Words(_plain(bare))
        if _names_formula(bare):
            return self.formula(bare, depth)
        if _WORDS.fullmatch(bare) and _are_words(words, marked):
            parts = [part for part in re.split(r",|\band\b|\bor\b", bare) if part.strip()]
            if len(parts) > 1 and len(words) <= 3 * len(parts):
                return Group("list", tuple(self.parse(rf"\text{{{part}}}", depth + 1) for part in parts))
            plain = _plain(bare)
            if plain in ("infinity", "positive infinity"):
                return Value(relations.INFINITY)
            return Words(plain)
        if sum(len(word) > 3 for word in _PROSE.findall(re.sub(r"\\[A-Za-z]+", " ", bare))) > 3:
            return Opaque(" ".join(bare.split()), never_equal=True)
        return None

    def number(self, text: str, depth: int) -> ParsedAnswer | None:
        """`1,234`, `2 1/2`, `0.\\overline{3}`, each with a unit."""
        # After 1,500 a letter is no variable.
        tail = split_unit(text, self.lone_letters or _GROUPED.match(text) is not None)
        rest = tail.rest.strip()
        if match := _GROUPED.fullmatch(rest):
            return Value(("number", signed(match[1] + match[2].replace(",", ""))), tail.unit, tail.percent)
        if match := _MIXED.fullmatch(rest):
            if int(match[4]) == 0:
                return Opaque(text, never_equal=True)
            value = number(match[2]) + number(match[3]) / number(match[4])
            return Value(("number", -value if match[1] == "-" else value), tail.unit, tail.percent)
        if match := _REPEATING.fullmatch(rest):
            start, period = number("0." + (match[3] or "0")), match[4]
            value = number(match[2] or "0") + start
            value += number(period) / (10 ** len(match[3]) * (10 ** len(period) - 1))
            return Value(("number", -value if match[1] == "-" else value), tail.unit, tail.percent)
        return None

    def several(self, text: str, depth: int) -> ParsedAnswer | None:
        """`1, 2`, `x = 1 or x = 2`, `3 and 4`."""
        text = _JOINER.sub(r" \1 ", text)
        parts = split(text, r"\bor\b")
        if len(parts) > 1:
            return relations.united([self.parse(part, depth + 1) for part in parts])
        text = without_thousands(text)
        parts = split(text, r"[,;]\s*and\b|[,;]|\band\b")
        if len(parts) == 1:
            return None
        if len(parts) > MAX_ITEMS:
            return Opaque(text, never_equal=True)
        items = [self.parse(part, depth + 1) for part in parts if part.strip()]
        return relations.listed(items) if len(items) > 1 else items[0] if items else None

    def related(self, text: str, depth: int) -> ParsedAnswer | None:
        """Unions, equations and inequalities."""
        if len(parts := split(text, r"\\cup\b")) > 1:
            return relations.united([self.parse(part, depth + 1) for part in parts], points=True)
        return relations.related(text, lambda part: self.parse(part, depth + 1))

    def enclosed(self, text: str, depth: int) -> ParsedAnswer | None:
        """`(1, 2)`, `[0, 1)`, `{3, 4}`, `]0, 1[`, and ratios `3:4`."""
        found = enclosed(text)
        if found is None:
            if ":" in text and _RATIO.fullmatch(text):
                return Ratio(tuple(self.parse(part, depth + 1) for part in text.split(":")))
            return None
        left, inner, right = found
        if left == r"\{" and len(parts := split(inner, r":|\||\\mid\b")) == 2:
            return self.parse(parts[1], depth + 1)
        parts = split(without_thousands(inner), r"[,;]")
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

    def french(self, text: str, depth: int) -> ParsedAnswer | None:
        """`]0, 1[`: brackets that turn away from an end leave it out."""
        if "]" not in text and "[" not in text:
            return None
        written = with_turned_brackets(text)
        return self.parse(written, depth + 1) if written != text else None

    def formula(self, text: str, depth: int) -> ParsedAnswer:
        """Anything else: one formula with its unit, or two with a plus-minus sign."""
        tail = split_unit(text, self.lone_letters)
        rest = tail.rest
        if rest != text and r"\text" in rest:
            return Opaque(text)
        try:
            if rest.count(r"\pm") + rest.count(r"\mp") == 1:
                signs = [re.sub(r"\\[pm]+\b", sign, rest.replace(r"\mp", r"\pm")) for sign in "+-"]
                trees = [parse_formula(side.strip().lstrip("+")) for side in signs]
                return Group("list", tuple(Value(tree, tail.unit, tail.percent) for tree in trees))
            return Value(parse_formula(rest), tail.unit, tail.percent)
        except MeaninglessError:
            return Opaque(text, never_equal=True)
        except UnreadableError:
            return Opaque(text)

    def _matrix(self, body: str, depth: int) -> ParsedAnswer:
        rows = [row for row in _LINE_END.split(body) if row.strip()]
        cells = [row.split("&") for row in rows]
        if not cells or len({len(row) for row in cells}) != 1 or len(cells) * len(cells[0]) > MAX_ITEMS:
            return Opaque(body, never_equal=True)
        items = tuple(self.parse(cell, depth + 1) for row in cells for cell in row)
        vector = len(cells) == 1 or len(cells[0]) == 1
        return Group("()" if vector else f"matrix {len(cells[0])}", items)


FORMS: tuple[tuple[str, Callable[[Parser, str, int], ParsedAnswer | None]], ...] = (
    ("time, date, base, congruence, choice or empty set", Parser.special),
    ("rows of a matrix, a system or cases", Parser.rows),
    ("number in words", Parser.number_in_words),
    ("words", Parser.words),
    ("number with marks, mixed or repeating", Parser.number),
    ("interval with turned brackets", Parser.french),
    ("several values", Parser.several),
    ("union, equation or inequality", Parser.related),
    ("brackets or ratio", Parser.enclosed),
    ("formula", Parser.formula),
)
"""What a text may be, in the order in which it is tried; the first form that fits is the answer's."""


def form_of(text: str, lone_letters: bool = False) -> str:
    """Returns the name of the form that an answer is parsed as, for an explanation."""
    if _PLAIN.fullmatch(text.strip()):
        return "plain number"
    parser = Parser(lone_letters)
    found = taken_apart(without_front(normalize(text.strip()).replace(r"\approx ", "= ")))
    if found is None:
        return "a text that denies what it says"
    if not found.content or len(found.content) > MAX_LENGTH:
        return "nothing"
    return next(name for name, form in FORMS if form(parser, found.content, 0) is not None)


def _names_formula(text: str) -> bool:
    """Whether a text without markup names a letter or applies a function: theta, sinx, oo, floor(x)."""
    words = text.split()
    if (
        len(words) > 1
        and words[0] in FUNCTIONS
        and all(len(word) == 1 or is_named(word) for word in words[1:])
    ):
        return True
    return is_named(text) or (_CALL.match(text) is not None and text.endswith(")"))
