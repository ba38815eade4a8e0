r"""Reads LaTeX or plain formulas into small trees, within bounds; never evaluates anything.

A tree is a tuple: ``("number", Fraction)``, ``("symbol", name)``, ``("constant", name)``, or an operation
``("+", a, b, ...)``, ``("*", a, b, ...)``, ``("inverse", a)``, ``("neg", a)``, ``("^", a, b)``, or a
function's name and its arguments. Sums and products are flat, so that no tree is deeper than its brackets.
What the grammar does not cover raises :class:`UnreadableError`; math-verify may read it.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

Tree = tuple[Any, ...]

MAX_LENGTH = 1500
MAX_DEPTH = 30
MAX_DIGITS = 600
"""Below the least limit that Python can be told for turning digits into integers (640)."""
MAX_DECIMAL_EXPONENT = 3000

_FUNCTION_NAMES = (
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln exp log lg max min gcd lcm abs sqrt"
)
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
_WORD_NAMES = {"pi": ("constant", "pi"), "infinity": ("constant", "infty"), "inf": ("constant", "infty")}
_CONSTANTS = {"pi": "pi", "infty": "infty"}
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon"
    " phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega hbar ell partial nabla"
)
_GREEK = frozenset(_GREEK_NAMES.split())
_ACCENTS = frozenset(["dot", "ddot", "bar", "hat", "vec", "tilde", "overline", "overrightarrow"])
_FUNCTION_LETTERS = frozenset("fghFGHPuδ")
_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}

_STEPS = {r"\lfloor": "floor", r"\lceil": "ceil"}

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+(?![\d.]))?)|(?P<command>\\[A-Za-z]+)|(?P<brace>\\[{}])"
    r"|(?P<letters>[A-Za-z]+)|(?P<other>\S))"
)


class UnreadableError(ValueError):
    """The text is outside the grammar or its bounds."""


def parse_formula(text: str) -> Tree:
    """Reads a normalized formula.

    Raises:
        UnreadableError: If it is outside the grammar, too long or too deep.
    """
    if len(text) > MAX_LENGTH:
        raise UnreadableError("too long")
    parser = _FormulaParser(_tokens(text))
    tree = parser.sum()
    if parser.peek():
        raise UnreadableError("something is left over")
    return tree


def number(digits: str) -> Fraction:
    """Returns the exact value of a decimal literal.

    Raises:
        UnreadableError: If it is longer, or its power of ten larger, than the bounds.
    """
    mantissa, _, exponent = digits.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > MAX_DECIMAL_EXPONENT:
        raise UnreadableError("number too long")
    whole, _, decimals = mantissa.partition(".")
    value = Fraction(int((whole + decimals) or 0), 10 ** len(decimals))
    return value * Fraction(10) ** int(exponent) if exponent else value


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    for match in _TOKEN.finditer(text):
        if letters := match["letters"]:
            tokens += _split_letters(letters)
        else:
            tokens.append(match[0].strip())
    return tokens


def _split_letters(letters: str) -> list[str]:
    """Splits a run of letters into one-letter names unless it is a function, a constant or a word."""
    if letters in FUNCTIONS or letters in _WORD_NAMES:
        return ["\\" + letters]
    if letters in ("np", "math"):
        return ["module"]
    return list(letters) if len(letters) <= 3 else [letters]


class _FormulaParser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise UnreadableError(f"no {token}")

    def nested(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("too deep")

    def sum(self) -> Tree:
        terms = [self.product()]
        while self.peek() in ("+", "-"):
            terms.append(self.product() if self.take() == "+" else ("neg", self.product()))
        return ("+", *terms) if len(terms) > 1 else terms[0]

    def product(self) -> Tree:
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self.take() == "-"
        start = self.position
        factors = [self.power()]
        if self.position == start + 1 and self.peek() == r"\frac" and self.tokens[start].isdecimal():
            factors = self.mixed(factors[0])
        while True:
            token = self.peek()
            if token in ("*", "/"):
                self.take()
                factor = self.signed_power()
                factors.append(factor if token == "*" else ("inverse", factor))
            elif self.starts_factor(token):
                factors.append(self.power())
            else:
                tree = ("*", *factors) if len(factors) > 1 else factors[0]
                return ("neg", tree) if negative else tree

    def signed_power(self) -> Tree:
        if self.peek() == "-":
            self.take()
            return ("neg", self.power())
        return self.power()

    def mixed(self, whole: Tree) -> list[Tree]:
        r"""Reads 2\frac12 as two and a half, but 2\frac{3}{2} and 2\frac{x}{3} as products."""
        part = self.power()
        if part[0] == "*" and part[1][0] == "number" and part[2][1][0] == "number":
            top, bottom = part[1][1], part[2][1][1]
            if top.denominator == bottom.denominator == 1 and top < bottom:
                return [("+", whole, part)]
        return [whole, part]

    def starts_factor(self, token: str) -> bool:
        if not token or token in "+-*/^)]}|,=<>:;!&_'%" or token in (r"\}", r"\rfloor", r"\rceil"):
            return False
        return token not in (
            r"\pm",
            r"\mp",
            r"\le",
            r"\ge",
            r"\ne",
            r"\in",
            r"\cup",
            r"\cap",
            r"\circ",
            r"\dots",
        )

    def power(self) -> Tree:
        base = self.primary()
        start = self.position
        for _ in range(MAX_DEPTH):
            token = self.peek()
            if token == "!":
                self.take()
                base = ("factorial", base)
            elif token == "^":
                self.take()
                if self.peek() == r"\circ":
                    self.take()
                    base = ("*", base, ("constant", "pi"), ("number", Fraction(1, 180)))
                else:
                    base = ("^", base, self.exponent())
            else:
                return base
        raise UnreadableError(f"{self.position - start} signs after a factor")

    def exponent(self) -> Tree:
        if self.peek() == "{":
            return self.group()
        self.nested()
        if self.peek() == "-":
            self.take()
            exponent: Tree = ("neg", self.exponent())
        else:
            exponent = self.primary()
            # A tower written without braces is read from the top.
            if self.peek() == "^":
                self.take()
                exponent = ("^", exponent, self.exponent())
        self.depth -= 1
        return exponent

    def group(self) -> Tree:
        self.nested()
        closing = _CLOSING[self.take()]
        tree = self.sum()
        self.expect(closing)
        self.depth -= 1
        return tree

    def argument(self) -> Tree:
        r"""Reads what follows \frac, \sqrt: a group, or one token as LaTeX takes it (\frac12)."""
        token = self.peek()
        if token == "{":
            return self.group()
        if token.isdecimal() and len(token) > 1:
            self.tokens[self.position : self.position + 1] = list(token)
        return self.primary()

    def primary(self) -> Tree:
        self.nested()
        tree = self.unnested_primary()
        self.depth -= 1
        return tree

    def unnested_primary(self) -> Tree:
        token = self.peek()
        if token in ("(", "[", "{"):
            return self.group()
        if token in _STEPS:
            return (_STEPS[token], self.group())
        self.take()
        if token == "|":
            inner = self.sum()
            self.expect("|")
            return ("abs", inner)
        if token == "module":
            self.expect(".")
            return self.primary()
        if token[:1].isdecimal() or token[:1] == ".":
            if self.peek() == "_" or not any(character.isdecimal() for character in token):
                raise UnreadableError("base")
            return ("number", number(token))
        if len(token) == 1 and token.isalpha():
            return self.name(token)
        if token.startswith("\\"):
            return self.command(token[1:])
        raise UnreadableError("unexpected sign")

    def command(self, name: str) -> Tree:
        if name in _CONSTANTS:
            return ("constant", _CONSTANTS[name])
        if name in _WORD_NAMES:
            return _WORD_NAMES[name]
        if name in _GREEK:
            return self.name("\\" + name)
        if name == "frac":
            return ("*", self.argument(), ("inverse", self.argument()))
        if name == "binom":
            return ("binom", self.argument(), self.argument())
        if name == "sqrt":
            return self.root()
        if name in FUNCTIONS:
            return self.function(name)
        if name in _ACCENTS:
            return self.name(f"{name} {self.raw()}")
        if name == "text" and self.peek() == "{":
            word = self.raw().removeprefix("\\")
            if len(word) == 1 and word.isalpha():
                return self.name(word)
            if word in FUNCTIONS:
                return self.function(word)
        raise UnreadableError("unknown command")

    def raw(self) -> str:
        """Takes a group or one token as it stands: a subscript, the letters under an accent."""
        if self.peek() != "{":
            return self.take()
        level = 0
        parts: list[str] = []
        while True:
            token = self.take()
            level += (token == "{") - (token == "}")
            if not token:
                raise UnreadableError("no closing brace")
            if level == 0:
                return "".join(part for part in parts if part not in ("{", "}", r"\text"))
            parts.append(token)

    def name(self, letter: str) -> Tree:
        if letter == "e" and self.peek() != "_":
            return ("constant", "e")
        if letter == "i" and self.peek() != "_":
            return ("constant", "i")
        name = letter
        while True:
            if self.peek() == "_":
                self.take()
                name += "_" + self.raw()
            elif self.peek() == "'":
                self.take()
                name += "'"
            elif self.tokens[self.position : self.position + 4] == ["^", "{", r"\prime", "}"]:
                self.position += 4
                name += "'"
            else:
                break
        if self.peek() == "(" and self.applies(letter):
            return ("apply", name, self.group())
        return ("symbol", name)

    def applies(self, letter: str) -> bool:
        """Whether a name before a parenthesis is a function of it, f(x + 1) or x(t), and no factor."""
        inside = self.tokens[self.position + 1 : self.position + 3]
        simple = len(inside) == 2 and inside[1] == ")"
        return letter in _FUNCTION_LETTERS or (simple and (inside[0].isalnum() or inside[0][1:] in _GREEK))

    def root(self) -> Tree:
        if self.peek() != "[":
            return ("^", self.argument(), ("number", Fraction(1, 2)))
        degree = self.group()
        return ("^", self.argument(), ("inverse", degree))

    def function(self, name: str) -> Tree:
        base: Tree | None = None
        power: Tree | None = None
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                base = self.argument()
            else:
                power = self.exponent()
        if power == ("neg", ("number", Fraction(1))) and name in _INVERSES:
            name, power = _INVERSES[name], None
        if name in ("max", "min", "gcd", "lcm"):
            tree: Tree = (name, *self.arguments())
        elif name == "sqrt":
            tree = ("^", self.function_argument(), ("number", Fraction(1, 2)))
        elif name in ("log", "lg"):
            tree = ("log", self.function_argument(), base or ("number", Fraction(10)))
        else:
            if base is not None:
                raise UnreadableError("subscript of a function")
            tree = (name, self.function_argument())
        return tree if power is None else ("^", tree, power)

    def function_argument(self) -> Tree:
        r"""Reads what a function applies to: a group, or the factors up to the next function or sign."""
        if self.peek() in ("(", "{", "["):
            return self.group()
        factors = [self.power()]
        while self.starts_factor(token := self.peek()) and token not in ("(", "[", "{"):
            if token[1:] in FUNCTIONS:
                break
            factors.append(self.power())
        return ("*", *factors) if len(factors) > 1 else factors[0]

    def arguments(self) -> list[Tree]:
        opening = self.take()
        if opening not in ("(", r"\{"):
            raise UnreadableError("no arguments")
        found = [self.sum()]
        while self.peek() == ",":
            self.take()
            found.append(self.sum())
        self.expect(_CLOSING[opening])
        return found
