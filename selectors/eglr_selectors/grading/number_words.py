"""Numbers in words: `5 million`, `three and a half`, `6 minus two`, `5 below zero`, `two thirds`.

These words change the value of the number beside them, so none of them can be a unit. What is not read here
is refused (:data:`CHANGING`): better no reading than the bare number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from eglr_selectors.grading.formula_tokens import FUNCTIONS, GREEK, Tree, UnreadableError, number

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_CARDINALS = {word: value for value, word in enumerate(_ONES.split())}
_CARDINALS |= {word: 10 * value for value, word in enumerate(_TENS.split(), 2)}
_MAGNITUDES = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "quadrillion": 10**15,
    "dozen": 12,
    "lakh": 10**5,
    "crore": 10**7,
    "百": 10**2,
    "千": 10**3,
    "万": 10**4,
    "亿": 10**8,
    "億": 10**8,
    "萬": 10**4,
}
_PARTS = {
    "half": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
    "eleventh": 11,
    "twelfth": 12,
    "twentieth": 20,
    "hundredth": 100,
    "thousandth": 1000,
    "millionth": 10**6,
    "billionth": 10**9,
}
_DENOMINATORS = _PARTS | {f"{word}s": value for word, value in _PARTS.items()} | {"halves": 2}
_OPERATORS = {
    ("plus",): "+",
    ("minus",): "-",
    ("times",): "*",
    ("multiplied", "by"): "*",
    ("divided", "by"): "/",
    ("over",): "/",
    ("choose",): "binom",
    ("to", "the", "power", "of"): "^",
    ("to", "the", "power"): "^",
    ("raised", "to", "the", "power", "of"): "^",
}
_FILLERS = frozenset(["by", "of", "the", "to"])
_AFTER: dict[tuple[str, ...], str] = {
    ("squared",): "2",
    ("cubed",): "3",
    ("factorial",): "!",
    ("below", "zero"): "-",
}
_OTHERS = (
    # of the value
    "add added subtract subtracted double doubled twice triple tripled thrice halved negative negatives"
    " positive opposite opposites inverse inverses reciprocal reciprocals square cube root log logarithm"
    " logarithms power powers exponent exponents mod modulo base point score scores gross percent percents"
    " percentage pct factor factorials complement complements conjugate conjugates sine sines cosine cosines"
    " tangent tangents exponential absolute radical derivative integral twos threes fours fives sixes sevens"
    " eights nines tens twenties ones zeros ratio quotient product sum difference"
    # of its place
    " less fewer more than below above under short"
    # of its truth
    " not no nor never or but either neither maybe wrong incorrect false invalid impossible rejected"
    " extraneous undefined infinity infinite if when where unless except without versus vs is are was equal"
    " equals"
)
CHANGING = frozenset(
    [
        *_CARDINALS,
        *_MAGNITUDES,
        *_DENOMINATORS,
        *(
            word
            for words in (*_OPERATORS, *_AFTER)
            for word in words
            if word not in ("by", "of", "the", "to")
        ),
        *_OTHERS.split(),
        *(f"{word}s" for word in _MAGNITUDES),
        *FUNCTIONS,
        *(name.casefold() for name in GREEK),
        "pi",
    ]
)
"""Words that change a value, deny it or hedge it, and names of functions and letters: never a unit."""

_LITERAL = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,300})(?:\.\d{1,300})?|[-+]?\.\d{1,300}")


@lru_cache(maxsize=2000)
def spoken(text: str) -> tuple[Tree, str] | None:
    """Reads a number that is written in words, or in words and digits.

    Args:
        text: Words without any markup, lower or upper case.

    Returns:
        Its value as a formula, and the rest of the text (a unit, or nothing); ``None`` if no word of the
        text belongs to a number, or if it cannot be read.
    """
    words = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text.casefold()).split()
    if not any(word in CHANGING or word in ("a", "an") for word in words):
        return None
    speech = _Speech(words)
    try:
        tree = speech.sum()
    except (UnreadableError, ValueError):
        return None
    # "3 degrees below zero": the words that change the sign stand behind the unit.
    rest = words[speech.position :]
    if rest[-2:] == ["below", "zero"]:
        tree, rest = ("neg", tree), rest[:-2]
        speech.changed = True
    if not speech.changed:
        return None
    return tree, " ".join(rest)


class _Speech:
    """One reading of a list of words, from left to right."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.position = 0
        self.changed = False

    def peek(self, ahead: int = 0) -> str:
        place = self.position + ahead
        return self.words[place] if place < len(self.words) else ""

    def sum(self) -> Tree:
        tree = self.signed()
        for _ in range(4):
            found = self._taken(_OPERATORS)
            if found is None:
                return tree
            operand = self.signed()
            if found == "^":
                tree = ("^", tree, operand)
            elif found == "binom":
                tree = ("binom", tree, operand)
            elif found in "*/":
                tree = ("*", tree, operand if found == "*" else ("inverse", operand))
            else:
                tree = ("+", tree, operand if found == "+" else ("neg", operand))
        raise UnreadableError("too many operations")

    def signed(self) -> Tree:
        negative = self.peek() in ("negative", "minus")
        if negative:
            self.position += 1
            self.changed = True
        value = self.amount()
        tree: Tree = ("number", -value if negative else value)
        after = self._taken(_AFTER)
        if after == "!":
            return ("factorial", tree)
        if after == "-":
            return ("neg", tree)
        return tree if after is None else ("^", tree, ("number", Fraction(after)))

    def amount(self) -> Fraction:
        """Reads a cardinal with what may follow it: a magnitude, a part, or `and a half`."""
        if self.peek() == "half":
            value = Fraction(1, 2)
            self._step()
            if self.peek() in ("a", "an") and self.peek(1) in _MAGNITUDES:
                self.position += 1
        else:
            value = self.cardinal()
            if self.peek() in _DENOMINATORS:
                value /= _DENOMINATORS[self.peek()]
                self._step()
            elif self.peek() == "and" and (part := self._part_after_and()) is not None:
                value += part
        while self.peek() in _MAGNITUDES or self.peek().removesuffix("s") in _MAGNITUDES:
            value *= _MAGNITUDES[self.peek() if self.peek() in _MAGNITUDES else self.peek()[:-1]]
            self._step()
        return value

    def _part_after_and(self) -> Fraction | None:
        start = self.position
        self.position += 1
        try:
            part = Fraction(1) if self.peek() in ("a", "an") else self.cardinal()
            if self.peek() in ("a", "an"):
                self.position += 1
            if self.peek() in _DENOMINATORS:
                part /= _DENOMINATORS[self.peek()]
                self._step()
                return part
        except UnreadableError:
            pass
        self.position = start
        return None

    def cardinal(self) -> Fraction:
        if _LITERAL.fullmatch(self.peek()):
            literal = number(self.peek().replace(",", "").lstrip("+-"))
            negative = self.peek().startswith("-")
            self.position += 1
            return -literal if negative else literal
        if self.peek() in ("a", "an") and self.peek(1) in (*_MAGNITUDES, *_DENOMINATORS):
            self.position += 1
            return Fraction(1)
        total = 0
        current = 0
        begun = False
        while (word := self.peek()) in _CARDINALS or word in _MAGNITUDES or (word == "and" and begun):
            if word == "and":
                if self.peek(1) not in _CARDINALS or current % 100:
                    break
            elif word in _CARDINALS:
                value = _CARDINALS[word]
                # Twenty one is one number, two three is none.
                if current % 10 or (current % 100 and value >= 10) or (begun and current == 0 and total == 0):
                    raise UnreadableError("two numbers")
                current += value
            elif not begun:
                raise UnreadableError("no number before a magnitude")
            elif word == "hundred":
                current *= 100
            else:
                total += current * _MAGNITUDES[word]
                current = 0
            begun = True
            self._step()
        if not begun:
            raise UnreadableError("no number")
        if self.peek() == "point":
            return Fraction(total + current) + self._decimals()
        return Fraction(total + current)

    def _decimals(self) -> Fraction:
        self._step()
        digits = ""
        while _CARDINALS.get(self.peek(), 10) < 10:
            digits += str(_CARDINALS[self.peek()])
            self._step()
        if not digits:
            raise UnreadableError("no decimals")
        return Fraction(int(digits), 10 ** len(digits))

    def _taken(self, table: dict[tuple[str, ...], str]) -> str | None:
        for words, meaning in table.items():
            if tuple(self.words[self.position : self.position + len(words)]) == words:
                self.position += len(words)
                self.changed = True
                return meaning
        return None

    def _step(self) -> None:
        self.position += 1
        self.changed = True
