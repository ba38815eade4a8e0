"""Values of expression trees: exact rationals, and high precision at fixed points. Nothing here can blow up.

Every operation is checked for the size of its result before it is carried out, so that a tower such as
10^10^10 raises :class:`TooLargeError` instead of being evaluated.
"""

from __future__ import annotations

import functools
import math
import operator
import threading
import zlib
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

from eglr_selectors.grading.formula_tokens import Tree

MAX_BITS = 1 << 15
MAX_FACTORIAL = 2000
MAX_TERMS = 200
"""Of a finite sum or product."""
MAX_MAGNITUDE = 10_000
"""Bits of the exponent of a number in the numerical evaluation."""


class TooLargeError(ArithmeticError):
    """A value is too large to be computed safely."""


class IrrationalError(ArithmeticError):
    """The tree is not made of rational operations on numbers alone."""


@lru_cache(maxsize=20_000)
def exact(tree: Tree) -> Fraction:
    """Returns the exact rational value.

    Raises:
        IrrationalError: If the tree holds symbols or irrational functions.
        TooLargeError: If an intermediate value would exceed the bound.
        ZeroDivisionError: If it divides by zero.
    """
    kind = tree[0]
    if kind == "number":
        return _sized(tree[1])
    if kind in ("symbol", "constant", "apply", "int"):
        raise IrrationalError(kind)
    if kind in ("sum", "prod"):
        terms = [exact(substituted(tree[4], tree[1], Fraction(index))) for index in _indices(tree)]
        return _sized(sum(terms, Fraction(0)) if kind == "sum" else math.prod(terms, start=Fraction(1)))
    arguments = [exact(part) for part in tree[1:]]
    if kind == "+":
        return _sized(sum(arguments[1:], arguments[0]))
    if kind == "*":
        value = arguments[0]
        for factor in arguments[1:]:
            value = _sized(value * factor)
        return value
    if kind == "inverse":
        return 1 / arguments[0]
    if kind == "neg":
        return -arguments[0]
    if kind == "^":
        return _power(*arguments)
    if kind in _EXACT:
        return Fraction(_EXACT[kind](*arguments))
    raise IrrationalError(kind)


def _indices(tree: Tree) -> range:
    """Returns what the variable of a finite series runs over."""
    low, high = exact(tree[2]), exact(tree[3])
    if low.denominator != 1 or high.denominator != 1:
        raise IrrationalError("bounds")
    if high - low > MAX_TERMS:
        raise IrrationalError("too many terms")
    return range(int(low), int(high) + 1)


def substituted(tree: Tree, name: str, value: Fraction) -> Tree:
    """Returns the tree with a number in place of a symbol."""
    if tree == ("symbol", name):
        return ("number", value)
    return tuple(substituted(part, name, value) if isinstance(part, tuple) else part for part in tree)


def _sized(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise TooLargeError("too many digits")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if base == 0 and exponent <= 0:
        raise ZeroDivisionError("zero to the power of zero")
    if exponent.denominator != 1:
        return _root(base, exponent)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) > MAX_BITS if abs(base) in (0, 1) else abs(exponent) * bits > MAX_BITS:
        if abs(base) == 1:
            return base if exponent.numerator % 2 else Fraction(1)
        if base == 0 and exponent > 0:
            return base
        raise TooLargeError("power")
    return base**exponent.numerator


def _root(base: Fraction, exponent: Fraction) -> Fraction:
    """Takes exact roots such as the square root of 4/9; others are irrational, or complex."""
    degree = exponent.denominator
    if base < 0 or degree > 64:
        raise IrrationalError("root")
    parts = [_integer_root(part, degree) for part in (base.numerator, base.denominator)]
    if any(
        root**degree != part for root, part in zip(parts, (base.numerator, base.denominator), strict=True)
    ):
        raise IrrationalError("root")
    return _power(Fraction(*parts), Fraction(exponent.numerator))


def _integer_root(value: int, degree: int) -> int:
    if degree == 2:
        return math.isqrt(value)
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**degree <= value:
            low = middle
        else:
            high = middle - 1
    return low


def _natural(value: Fraction) -> int:
    if value.denominator != 1 or value < 0:
        raise IrrationalError("not a natural number")
    if value > MAX_FACTORIAL:
        raise TooLargeError("factorial")
    return value.numerator


def _integers(*values: Fraction) -> list[int]:
    if any(value.denominator != 1 for value in values):
        raise IrrationalError("not an integer")
    return [value.numerator for value in values]


_EXACT: dict[str, Any] = {
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "factorial": lambda value: math.factorial(_natural(value)),
    "binom": lambda top, bottom: math.comb(_natural(top), _natural(bottom)),
    "max": max,
    "min": min,
    "gcd": lambda *values: math.gcd(*_integers(*values)),
    "lcm": lambda *values: _sized(Fraction(math.lcm(*_integers(*values)))),
}


@lru_cache(maxsize=20_000)
def symbols(tree: Tree) -> frozenset[str]:
    """Returns the names of the symbols, with those of applied functions marked by parentheses."""
    if tree[0] == "symbol":
        return frozenset([tree[1]])
    if tree[0] == "apply":
        return symbols(tree[2]) | {f"{tree[1]}()"}
    found = frozenset().union(*(symbols(part) for part in tree[1:] if isinstance(part, tuple)))
    return found - {tree[1]} if tree[0] in SERIES else found


SERIES = frozenset(["sum", "prod", "int"])
_INTEGERS_ONLY = frozenset(["factorial", "binom", "gcd", "lcm", "sum", "prod"])
_STEPS = frozenset(["floor", "ceil"])
_COUNTING_NAMES = frozenset("nmkNMK")
Domain = Literal["real", "steps", "integer"]


@lru_cache(maxsize=20_000)
def domain(tree: Tree) -> Domain:
    """Returns where a tree has to be tried.

    Factorials, binomials and series want integers. A floor or ceiling wants points between the integers
    and the integers, but for the letters that count (n, m, k), which are integers.
    """
    kinds = _kinds(tree)
    return "integer" if kinds & _INTEGERS_ONLY else "steps" if kinds & _STEPS else "real"


@lru_cache(maxsize=20_000)
def _kinds(tree: Tree) -> frozenset[str]:
    return frozenset([tree[0]]).union(*(_kinds(part) for part in tree[1:] if isinstance(part, tuple)))


def point(names: frozenset[str], number: int, where: Domain) -> dict[str, Fraction]:
    """Returns fixed values for symbols, the same in every process; from the third point on, of mixed sign."""
    values = {}
    for name in names:
        seed = zlib.crc32(f"{name}/{number}".encode())
        if where == "steps" and (name in _COUNTING_NAMES or number % 4 == 0):
            # Of very different sizes: a floor of a logarithm is the same for all numbers of one size.
            values[name] = Fraction(2 + seed % 7 ** (1 + number % 4))
        elif where == "integer":
            values[name] = Fraction(2 + seed % 23 + 3 * number)
        else:
            sign = -1 if number > 2 and seed & 1 else 1
            values[name] = Fraction(sign * (300 + seed % 2000), 997) + (number == 2) * 2
    return values


class Evaluation:
    """One numerical evaluation, which notes how far apart in size its intermediate values were.

    Attributes:
        largest: Base-2 exponent of the largest intermediate value; rounding errors scale with it.
        smallest: That of the smallest nonzero number, power or product; equality is only believed well
            below it.
        real: Whether all intermediate values were real.
    """

    def __init__(self, digits: int, values: Mapping[str, Fraction]) -> None:
        self.context = _context(digits)
        self.values = values
        self.largest, self.smallest = 0, 0
        self.real = True

    def value(self, tree: Tree) -> Any:
        """Returns the value in mpmath's numbers.

        Raises:
            TooLargeError: If an intermediate value would exceed the bound.
            ArithmeticError, ValueError: If it is undefined at this point.
        """
        kind = tree[0]
        context = self.context
        if kind == "number":
            return self._noted(context.mpf(tree[1].numerator) / tree[1].denominator)
        if kind == "symbol":
            value = self.values[tree[1]]
            return self._noted(context.mpf(value.numerator) / value.denominator)
        if kind == "constant":
            return self._constant(tree[1])
        if kind == "apply":
            # An unknown function of a known argument: any fixed function will do.
            parameter = self.values[f"{tree[1]}()"]
            argument = self.value(tree[2]) + context.mpf(parameter.numerator) / parameter.denominator
            self._small(argument)
            return self._noted(context.cos(argument) + context.sqrt(2) + context.sin(argument * argument) / 3)
        if kind in SERIES:
            return self._noted(self._series(tree))
        value = self._operation(kind, [self.value(part) for part in tree[1:]])
        # What sums and functions leave of a cancellation is noise, and no small part of the formula.
        return self._noted(value, small=kind in ("^", "*", "inverse", "exp"))

    def _series(self, tree: Tree) -> Any:
        kind, own, low, high, body = tree
        if kind == "int":
            raise ValueError("integral")
        bounds = [self.value(low), self.value(high)]
        if any(self.context.im(bound) or bound != self.context.nint(bound) for bound in bounds):
            raise ValueError("bounds")
        first, last = (int(bound) for bound in bounds)
        if last - first > MAX_TERMS:
            raise ValueError("too many terms")
        total = self.context.mpf(0 if kind == "sum" else 1)
        outer = self.values
        try:
            for index in range(first, last + 1):
                self.values = {**outer, own: Fraction(index)}
                term = self.value(body)
                total = total + term if kind == "sum" else total * term
        finally:
            self.values = outer
        return total

    def _operation(self, kind: str, arguments: list[Any]) -> Any:
        context = self.context
        first = arguments[0]
        if kind == "+":
            return sum(arguments[1:], first)
        if kind == "*":
            return functools.reduce(operator.mul, arguments)
        if kind == "inverse":
            return 1 / first
        if kind == "neg":
            return -first
        if kind == "^":
            return self._power(first, arguments[1])
        if kind == "log":
            return context.log(first) / context.log(arguments[1])
        if kind in ("factorial", "binom", "exp"):
            for argument in arguments:
                self._small(argument)
        if kind in ("floor", "ceil", "max", "min") and any(context.im(value) for value in arguments):
            raise ValueError(kind)
        if kind in ("floor", "ceil"):
            # Rounding noise must not push an exact integer over the edge.
            nearest = context.nint(first)
            if abs(first - nearest) < context.mpf(10) ** (5 - context.dps):
                return nearest
        if kind in ("gcd", "lcm"):
            raise ValueError(kind)
        return _numeric(context, kind)(*arguments)

    def _power(self, base: Any, exponent: Any) -> Any:
        context = self.context
        if base == 0:
            if context.re(exponent) > 0:
                return base
            raise ZeroDivisionError
        size = max(abs(context.mag(base)), 1)
        if context.mag(exponent) > 20 or abs(exponent) * size > MAX_MAGNITUDE:
            raise TooLargeError("power")
        return base**exponent

    def _constant(self, name: str) -> Any:
        context = self.context
        if name == "infty":
            raise ValueError("infinity")
        return context.mpc(0, 1) if name == "i" else +(context.pi if name == "pi" else context.e)

    def _small(self, value: Any) -> None:
        if self.context.mag(value) > 12:
            raise TooLargeError("argument")

    def _noted(self, value: Any, small: bool = True) -> Any:
        if value:
            if value.imag:
                self.real = False
            size = int(self.context.mag(value))
            if abs(size) > MAX_MAGNITUDE:
                raise TooLargeError("magnitude")
            self.largest = max(self.largest, size)
            if small:
                self.smallest = min(self.smallest, size)
        return value


_LOCAL = threading.local()


def _context(digits: int) -> Any:
    """A context of our own for each thread: the host's precision stays, and no other thread changes ours."""
    contexts: dict[int, Any] = _LOCAL.__dict__.setdefault("contexts", {})
    if digits not in contexts:
        import mpmath

        contexts[digits] = mpmath.MPContext()
        contexts[digits].dps = digits
    return contexts[digits]


def _numeric(context: Any, kind: str) -> Any:
    names = {
        "arcsin": "asin",
        "arccos": "acos",
        "arctan": "atan",
        "abs": "fabs",
        "binom": "binomial",
        "ceil": "ceil",
    }
    if kind in ("max", "min"):
        return max if kind == "max" else min
    return getattr(context, names.get(kind, kind))
