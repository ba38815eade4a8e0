"""Whether two formulas have the same value: exactly where they are rational, else at fixed points.

Two formulas that agree at several points to far more digits than their own intermediate values span are
equal except with negligible probability (Schwartz, doi:10.1145/322217.322225, for polynomials); two that
differ clearly at one point where all symbols are positive are not. What is in between is left to math-verify.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from eglr_selectors.grading.arithmetic import (
    SERIES,
    Domain,
    Evaluation,
    IrrationalError,
    TooLargeError,
    domain,
    exact,
    point,
    symbols,
)
from eglr_selectors.grading.formula_tokens import Tree

_DIGITS = 50
_GUARD_DIGITS = 20
_MAX_DIGITS = 1200
_POINTS: dict[Domain, int] = {"real": 6, "steps": 16, "integer": 6}
_ENOUGH: dict[Domain, int] = {"real": 3, "steps": 12, "integer": 3}
"""At so many points two formulas have to agree, if they can be evaluated there."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What holds of a tree alone.

    Attributes:
        rational: Its exact value; ``None`` if it is not rational.
        infinite: Whether infinity occurs in it.
        names: Its symbols.
        where: At which points it has to be tried.
        imaginary: Whether the imaginary unit occurs in it.
    """

    rational: Fraction | None
    infinite: bool
    names: frozenset[str]
    where: Domain
    imaginary: bool


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
    return Facts(
        rational,
        _holds(tree, ("constant", "infty")),
        symbols(tree),
        domain(tree),
        _holds(tree, ("constant", "i")),
    )


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
    where: Domain = max(one.where, other.where, key=("real", "steps", "integer").index)
    agreed = 0
    branches = False
    for number in range(1, _POINTS[where] + 1 if names else 2):
        same = _same_at(left, right, number, where)
        if same is None:
            continue
        if not same and _apart(left, right, number):
            return None
        if not same:
            # At points of mixed sign roots and logarithms may differ by the branch alone. Where one side is
            # not real all the way, its letters stand for positive numbers, and the point tells nothing.
            if number <= 2 or where != "real" or _real_at(left, right, number):
                return False
            branches = True
        else:
            agreed += 1
        if agreed >= _ENOUGH[where]:
            break
    if agreed < min(2, len(names) + 1) or (branches and (one.imaginary or other.imaginary)):
        return None
    return True


def multiples(left: Tree, right: Tree) -> bool:
    """Returns whether two trees are the same but for a constant nonzero factor, as equations may be."""
    names = symbols(left)
    if names != symbols(right) or not names:
        return False
    ratios = []
    for number in range(1, _POINTS["real"] + 1):
        found = _evaluated(left, number, "real", _DIGITS), _evaluated(right, number, "real", _DIGITS)
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


def _holds(tree: Tree, constant: Tree) -> bool:
    """Whether a constant occurs in a tree; what stands in a series is the series' affair."""
    return tree == constant or (
        tree[0] not in SERIES and any(_holds(part, constant) for part in tree[1:] if isinstance(part, tuple))
    )


@dataclass(frozen=True, slots=True)
class _Evaluated:
    value: Any
    largest: int
    smallest: int
    real: bool


@lru_cache(maxsize=20_000)
def _evaluated(tree: Tree, number: int, where: Domain, digits: int) -> _Evaluated | None:
    """Evaluates a tree at a fixed point, once for all the trees that it is compared with."""
    evaluation = Evaluation(digits, point(symbols(tree), number, where))
    try:
        value = evaluation.value(tree)
    except TooLargeError:
        raise
    except (ArithmeticError, ValueError, TypeError):
        return None
    return _Evaluated(value, evaluation.largest, evaluation.smallest, evaluation.real)


def _same_at(left: Tree, right: Tree, number: int, where: Domain) -> bool | None:
    digits = _DIGITS
    while True:
        one, other = _evaluated(left, number, where, digits), _evaluated(right, number, where, digits)
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


def _apart(left: Tree, right: Tree, number: int) -> bool:
    """Whether one side is real at a point of mixed sign where the other one is not: 2 ln x and ln(x^2)."""
    if number <= 2:
        return False
    found = _evaluated(left, number, "real", _DIGITS), _evaluated(right, number, "real", _DIGITS)
    return len({bool(side.value.imag) for side in found if side is not None}) == 2


def _real_at(left: Tree, right: Tree, number: int) -> bool:
    found = _evaluated(left, number, "real", _DIGITS), _evaluated(right, number, "real", _DIGITS)
    return all(side is not None and side.real for side in found)
