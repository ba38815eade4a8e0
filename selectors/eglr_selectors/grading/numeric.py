"""Whether two formulas have the same value: exactly where they are rational, else at fixed points.

Two formulas that agree at several points to far more digits than their own intermediate values span are
the same formula but for a freak (Schwartz, doi:10.1145/322217.322225, for polynomials); two that differ
clearly at one point where all symbols are positive are not. What is in between is left to math-verify.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from eglr_selectors.grading.arithmetic import (
    Evaluation,
    IrrationalError,
    TooLargeError,
    exact,
    point,
    stepwise,
    symbols,
)
from eglr_selectors.grading.formula import Tree

_DIGITS = 50
_GUARD_DIGITS = 20
_MAX_DIGITS = 1200
_POINTS = 6


@dataclass(frozen=True, slots=True)
class Facts:
    """What holds of a tree alone.

    Attributes:
        rational: Its exact value; ``None`` if it is not rational.
        infinite: Whether infinity occurs in it.
        names: Its symbols.
        integers: Whether it has functions that are meant for integers.
    """

    rational: Fraction | None
    infinite: bool
    names: frozenset[str]
    integers: bool


@lru_cache(maxsize=20_000)
def facts(tree: Tree) -> Facts:
    """Returns what holds of a tree alone, found once for all its comparisons.

    Raises:
        TooLargeError: If it cannot be computed safely.
        ZeroDivisionError: If it divides by zero.
    """
    try:
        rational = exact(tree)
    except IrrationalError:
        rational = None
    return Facts(rational, _infinite(tree), symbols(tree), stepwise(tree))


def same_value(left: Tree, right: Tree) -> bool | None:
    """Returns whether two trees are equal for all values of their symbols; ``None`` where that stays open.

    Raises:
        TooLargeError: If either cannot be computed safely.
        ZeroDivisionError: If either divides by zero.
    """
    if left == right:
        return True
    one, other = facts(left), facts(right)
    if one.rational is not None and other.rational is not None:
        return one.rational == other.rational
    if one.infinite or other.infinite:
        return False
    names = one.names | other.names
    integers = one.integers or other.integers
    agreed = differed = 0
    for number in range(1, _POINTS + 1 if names else 2):
        same = _same_at(left, right, number, integers)
        if same is None:
            continue
        if not same:
            # At points of mixed sign, roots and logarithms may differ by the branch alone.
            if number <= 2 or integers or _real_at(left, right, number):
                return False
            differed += 1
        agreed += same
        if agreed >= 3:
            break
    if differed or agreed < min(2, len(names) + 1):
        return None
    return True


def multiples(left: Tree, right: Tree) -> bool:
    """Returns whether two trees are the same but for a constant nonzero factor, as equations may be."""
    names = symbols(left)
    if names != symbols(right) or not names:
        return False
    ratios = []
    for number in range(1, _POINTS + 1):
        found = _evaluated(left, number, False, _DIGITS), _evaluated(right, number, False, _DIGITS)
        if found[0] is None or found[1] is None:
            continue
        one, other = found[0].value, found[1].value
        if abs(one) < 1e-12 or abs(other) < 1e-12:
            return False
        ratios.append(one / other)
    return len(ratios) > 2 and all(abs(ratio / ratios[0] - 1) < 1e-25 for ratio in ratios)


def approximate(tree: Tree) -> float:
    """Returns the value of a real constant; NaN if it is none."""
    if symbols(tree):
        return math.nan
    try:
        return float(Evaluation(_DIGITS, {}).value(tree))
    except (ArithmeticError, ValueError, TypeError):
        return math.nan


def _infinite(tree: Tree) -> bool:
    return tree == ("constant", "infty") or any(
        _infinite(part) for part in tree[1:] if isinstance(part, tuple)
    )


@dataclass(frozen=True, slots=True)
class _Evaluated:
    value: Any
    largest: int
    smallest: int


@lru_cache(maxsize=20_000)
def _evaluated(tree: Tree, number: int, integers: bool, digits: int) -> _Evaluated | None:
    """Evaluates a tree at a fixed point, once for all the trees that it is compared with."""
    evaluation = Evaluation(digits, point(symbols(tree), number, integers))
    try:
        value = evaluation.value(tree)
    except TooLargeError:
        raise
    except (ArithmeticError, ValueError, TypeError):
        return None
    return _Evaluated(value, evaluation.largest, evaluation.smallest)


def _same_at(left: Tree, right: Tree, number: int, integers: bool) -> bool | None:
    digits = _DIGITS
    while True:
        one, other = _evaluated(left, number, integers, digits), _evaluated(right, number, integers, digits)
        if one is None or other is None:
            return None
        largest, smallest = max(one.largest, other.largest), min(one.smallest, other.smallest)
        difference = abs(one.value - other.value)
        if difference and _exponent(difference) > largest - (digits - _GUARD_DIGITS) * math.log2(10):
            return False
        spread = (largest - smallest) * math.log10(2)
        if spread + 2 * _GUARD_DIGITS <= digits:
            return True
        if spread + 2 * _GUARD_DIGITS > _MAX_DIGITS:
            return None
        digits = int(spread) + 3 * _GUARD_DIGITS


def _exponent(value: Any) -> int:
    """Returns the base-2 exponent of a positive real number of mpmath, from its mantissa and exponent."""
    _, _, exponent, bits = value._mpf_
    return int(exponent + bits)


def _real_at(left: Tree, right: Tree, number: int) -> bool:
    found = _evaluated(left, number, False, _DIGITS), _evaluated(right, number, False, _DIGITS)
    return all(side is not None and not side.value.imag for side in found)
