"""The words and signs of a formula: names of functions and letters, numbers, and the tokens of a text."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

Tree = tuple[Any, ...]

MAX_DEPTH = 30
MAX_DIGITS = 600
"""Below the least limit that Python can be told for turning digits into integers (640)."""
MAX_DECIMAL_EXPONENT = 3000

_FUNCTION_NAMES = (
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln exp log lg max min gcd lcm abs sqrt"
    " cis cbrt asin acos atan floor ceil ceiling binom binomial factorial"
)
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
WORD_NAMES = {"pi": ("constant", "pi"), "infinity": ("constant", "infty"), "inf": ("constant", "infty")}
WORD_NAMES["oo"] = ("constant", "infty")
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon"
    " phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega hbar ell partial nabla"
)
GREEK = frozenset(_GREEK_NAMES.split())

_SIGNS = r"\} \rfloor \rceil \pm \mp \le \ge \ne \in \cup \cap \circ \dots \over \choose"
NO_FACTORS = frozenset(_SIGNS.split())
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+(?![\d.]))?)|(?P<command>\\[A-Za-z]+)|(?P<brace>\\[{}])"
    r"|(?P<letters>[A-Za-z]+)|(?P<other>\S))"
)


_JOINED = re.compile(
    r"([A-Za-z]?)(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|sqrt)"
    r"([A-Za-z]|theta|alpha|beta|phi|pi)"
)


class UnreadableError(ValueError):
    """The text is outside the grammar or its bounds."""


class MeaninglessError(UnreadableError):
    """The text means nothing that could be equal to anything: two numbers side by side are no product."""


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


def is_number(token: str) -> bool:
    """Whether a token is a decimal literal."""
    return token[:1].isdecimal() or (token[:1] == "." and token[1:2].isdecimal())


def is_named(word: str) -> bool:
    """Whether a word names a constant or a Greek letter, or applies a function to a letter (sinx)."""
    return word in WORD_NAMES or word in GREEK or _JOINED.fullmatch(word) is not None


def tokens_of(text: str) -> list[str]:
    """Splits a normalized formula into numbers, commands, letters and signs."""
    tokens: list[str] = []
    for match in _TOKEN.finditer(text):
        if letters := match["letters"]:
            tokens += _split_letters(letters)
        else:
            tokens.append(match[0].strip())
    return tokens


def _split_letters(letters: str) -> list[str]:
    """Splits a run of letters into one-letter names, functions, constants and Greek letters by name."""
    if letters in FUNCTIONS or letters in WORD_NAMES or letters in GREEK:
        return ["\\" + letters]
    if letters in ("np", "math"):
        return ["module"]
    if match := _JOINED.fullmatch(letters):
        # xsinx, 2cosx, lnx: at most one letter before the function and two behind it.
        behind = ["\\" + match[3]] if match[3] in GREEK or match[3] == "pi" else list(match[3])
        return [*match[1], "\\" + match[2], *behind]
    return list(letters) if len(letters) <= 3 else [letters]


class TokenReader:
    """A place in a list of tokens, and how deep in brackets it is."""

    def __init__(self, tokens: list[str], depth: int = 0) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = depth

    def peek(self) -> str:
        """The next token; empty at the end."""
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        """The next token, which is then behind."""
        token = self.peek()
        self.position += 1
        return token

    def expect(self, token: str) -> None:
        """Takes a token that has to be there."""
        if self.take() != token:
            raise UnreadableError(f"no {token}")

    def nested(self) -> None:
        """Goes one bracket deeper."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("too deep")

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

    def raw_tokens(self) -> list[str]:
        """Takes a group without its braces, or one token."""
        if self.peek() != "{":
            return [self.take()]
        self.take()
        level, start = 1, self.position
        while level:
            token = self.take()
            if not token:
                raise UnreadableError("no closing brace")
            level += (token == "{") - (token == "}")
        return self.tokens[start : self.position - 1]

    def product_tokens(self) -> list[str]:
        """Takes the tokens of the product that a series runs over: up to the next sign or closing bracket."""
        start, level = self.position, 0
        while token := self.peek():
            if token in ("(", "[", "{"):
                level += 1
            elif token in (")", "]", "}"):
                level -= 1
            if level < 0 or (level == 0 and self.position > start and token in ("+", "-", "=", ",", r"\}")):
                break
            if token in NO_FACTORS and level == 0:
                break
            self.position += 1
        return self.tokens[start : self.position]


def functions_of_subscripts(tokens: list[str], variable: str) -> list[str]:
    """Writes a_k and a_{n-k} as a function of their subscript where the variable of a series is in it."""
    written: list[str] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if token == "_" and written and written[-1].isalpha() and position + 1 < len(tokens):
            end = position + 2
            if tokens[position + 1] == "{":
                level = 1
                while level and end < len(tokens):
                    level += (tokens[end] == "{") - (tokens[end] == "}")
                    end += 1
            inside = [part for part in tokens[position + 1 : end] if part not in ("{", "}")]
            if variable in inside:
                written[-1:] = ["indexed", written[-1], "(", *inside, ")"]
                position = end
                continue
        written.append(token)
        position += 1
    return written


def renamed(tree: Tree, variable: str, own: str) -> Tree:
    """Returns a tree with the variable of a series by a name of its own."""
    if tree == ("symbol", variable) or (variable == "i" and tree == ("constant", "i")):
        return ("symbol", own)
    return tuple(renamed(part, variable, own) if isinstance(part, tuple) else part for part in tree)
