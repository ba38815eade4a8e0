r"""Reads LaTeX or plain formulas into small trees, within bounds; never evaluates anything.

A tree is a tuple: ``("number", Fraction)``, ``("symbol", name)``, ``("constant", name)``, or an operation
``("+", a, b, ...)``, ``("*", a, b, ...)``, ``("inverse", a)``, ``("neg", a)``, ``("^", a, b)``, a function's
name and its arguments, or ``("sum", variable, low, high, body)`` and its kin ``prod`` and ``int``. Sums and
products are flat, so that no tree is deeper than its brackets. What the grammar does not cover raises
:class:`UnreadableError`; math-verify may read it.
"""

from __future__ import annotations

from fractions import Fraction

from eglr_selectors.grading.formula_tokens import (
    FUNCTIONS,
    GREEK,
    MAX_DEPTH,
    NO_FACTORS,
    WORD_NAMES,
    MeaninglessError,
    TokenReader,
    Tree,
    UnreadableError,
    functions_of_subscripts,
    is_number,
    number,
    renamed,
    tokens_of,
)

MAX_LENGTH = 1500
_SYNONYMS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "ceiling": "ceil", "binomial": "binom"}
_SERIES = {"sum": "sum", "prod": "prod", "int": "int"}
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
_CONSTANTS = {"pi": "pi", "infty": "infty"}
_ACCENTS = frozenset(["dot", "ddot", "bar", "hat", "vec", "tilde", "overline", "overrightarrow"])
_FUNCTION_LETTERS = frozenset("fghFGHPuδ")
_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}

_CLOSED = frozenset([")", "]", "!"])
_STEPS = {r"\lfloor": "floor", r"\lceil": "ceil"}


def parse_formula(text: str) -> Tree:
    """Reads a normalized formula.

    Raises:
        UnreadableError: If it is outside the grammar, too long or too deep.
    """
    if len(text) > MAX_LENGTH:
        raise UnreadableError("too long")
    parser = _FormulaParser(tokens_of(text))
    tree = parser.over()
    if parser.peek():
        raise UnreadableError("something is left over")
    return tree


def _numeric(tree: Tree) -> bool:
    return tree[0] == "number" or (
        tree[0] in ("*", "inverse", "^", "+", "neg") and all(_numeric(part) for part in tree[1:])
    )


class _FormulaParser(TokenReader):
    """The grammar, one method a rule."""

    def over(self) -> Tree:
        r"""Reads a sum, or two of them with \over or \choose between, the old form of a fraction."""
        top = self.sum()
        if self.peek() not in (r"\over", r"\choose"):
            return top
        if self.take() == r"\over":
            return ("*", top, ("inverse", self.sum()))
        return ("binom", top, self.sum())

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
                if (
                    is_number(token)
                    and self.tokens[self.position - 1] not in _CLOSED
                    and _numeric(factors[-1])
                ):
                    raise MeaninglessError("two numbers side by side")
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
        return bool(token) and token not in "+-*/^)]}|,=<>:;!&_'%\"$" and token not in NO_FACTORS

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
                    base = self.raised(base)
            else:
                return base
        raise UnreadableError(f"{self.position - start} signs after a factor")

    def raised(self, base: Tree) -> Tree:
        """Reads an exponent; the subscript of a name may stand behind it (x^2_1)."""
        exponent = self.exponent()
        if self.peek() == "_" and base[0] in ("symbol", "constant"):
            if base[0] == "constant" and base[1] not in ("e", "i"):
                raise UnreadableError("subscript of a constant")
            self.take()
            base = ("symbol", f"{base[1]}_{self.raw()}")
        return ("^", base, exponent)

    def exponent(self) -> Tree:
        if self.peek() == "{":
            return self.group()
        self.nested()
        if self.peek() == "-":
            self.take()
            exponent: Tree = ("neg", self.exponent())
        else:
            token = self.peek()
            exponent = ("number", number(self.take())) if is_number(token) else self.primary()
            # A tower written without braces is read from the top.
            if self.peek() == "^":
                self.take()
                exponent = ("^", exponent, self.exponent())
        self.depth -= 1
        return exponent

    def group(self) -> Tree:
        self.nested()
        closing = _CLOSING[self.take()]
        tree = self.over()
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
        if token == "indexed":
            return ("apply", self.take() + "_", self.group())
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
        if name in WORD_NAMES:
            return WORD_NAMES[name]
        if name in GREEK:
            return self.name("\\" + name)
        if name == "frac":
            return ("*", self.argument(), ("inverse", self.argument()))
        if name == "binom" and self.peek() != "(":
            return ("binom", self.argument(), self.argument())
        if name == "sqrt":
            return self.root()
        if name in _SERIES:
            return self.series(name)
        if name in FUNCTIONS:
            return self.function(_SYNONYMS.get(name, name))
        if name in _ACCENTS:
            return self.name(f"{name} {self.raw()}")
        if name == "text" and self.peek() == "{":
            word = self.raw().removeprefix("\\")
            if len(word) == 1 and word.isalpha():
                return self.name(word)
            if word in FUNCTIONS:
                return self.function(word)
        raise UnreadableError("unknown command")

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
        return letter in _FUNCTION_LETTERS or (simple and (inside[0].isalnum() or inside[0][1:] in GREEK))

    def series(self, name: str) -> Tree:
        r"""Reads \sum_{k=1}^{n}, \prod and \int_a^b ... dx; the bound variable gets a name of its own."""
        low: list[str] | None = None
        high: Tree | None = None
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                low = self.raw_tokens()
            else:
                high = self.exponent()
        if low is None or high is None:
            raise UnreadableError("no bounds")
        if name == "int":
            return self.integral(_whole(low), high)
        if len(low) < 3 or low[1] != "=" or not low[0][-1].isalpha():
            raise UnreadableError("no index")
        return self.bound(name, low[0], _whole(low[2:]), high, self.product_tokens())

    def bound(self, name: str, variable: str, low: Tree, high: Tree, body: list[str]) -> Tree:
        r"""Makes the tree of a series; a name with its variable in a subscript (a_k) is a function."""
        self.nested()
        own = f"#{self.depth}"
        tree = _FormulaParser(functions_of_subscripts(body, variable), self.depth).whole()
        self.depth -= 1
        return (name, own, low, high, renamed(tree, variable, own))

    def integral(self, low: Tree, high: Tree) -> Tree:
        start = self.position
        for place in range(len(self.tokens) - 2, start - 1, -1):
            if self.tokens[place] == "d" and (name := self.tokens[place + 1]) and name[-1].isalpha():
                body = self.tokens[start:place] or ["1"]
                self.position = place + 2
                return self.bound("int", name, low, high, body)
        raise UnreadableError("no differential")

    def whole(self) -> Tree:
        tree = self.over()
        if self.peek():
            raise UnreadableError("something is left over")
        return tree

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
        if name in ("max", "min", "gcd", "lcm", "binom"):
            tree: Tree = (name, *self.arguments())
            if name == "binom" and len(tree) != 3:
                raise UnreadableError("binomial of two numbers")
        elif name == "sqrt":
            tree = ("^", self.function_argument(), ("number", Fraction(1, 2)))
        elif name == "cbrt":
            tree = ("^", self.function_argument(), ("number", Fraction(1, 3)))
        elif name == "cis":
            tree = ("exp", ("*", ("constant", "i"), self.function_argument()))
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


def _whole(tokens: list[str]) -> Tree:
    return _FormulaParser(tokens).whole()
