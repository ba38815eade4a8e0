"""Whether two formulas have the same value: exactly where they are rational, else at fixed points.

Two formulas that agree at several points to far more digits than their own intermediate values span are
the same formula but for a freak (Schwartz, doi:10.1145/322217.322225, for polynomials); two that differ
clearly at one point where all symbols are positive are not. What is in between is left to math-verify.
"""

from __future__ import annotations

import math
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
from eglr_selectors.grading.expression import Tree

_DIGITS = 50
_GUARD_DIGITS = 20
_MAX_DIGITS = 1200
_POINTS = 6


@lru_cache(maxsize=20_000)
def same_value(left: Tree, right: Tree) -> bool | None:
    """Returns whether two trees are equal for all values of their symbols; ``None`` where that stays open.

    Raises:
        TooLargeError: If either cannot be computed safely.
        ZeroDivisionError: If either divides by zero.
    """
    if left == right:
        return True
    try:
        return exact(left) == exact(right)
    except IrrationalError:
        pass
    if _infinite(left) or _infinite(right):
        return False
    names = symbols(left) | symbols(right)
    integers = stepwise(left) or stepwise(right)
    agreed = differed = 0
    for number in range(1, _POINTS + 1 if names else 2):
        values = point(names, number, integers)
        same = _same_at(left, right, values)
        if same is None:
            continue
        if not same:
            # At points of mixed sign, roots and logarithms may differ by the branch alone.
            if number <= 2 or integers or _real_at(left, right, values):
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
        found = _values(left, right, point(names, number, False), _DIGITS)
        if found is None:
            continue
        one, other, _ = found
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


def _same_at(left: Tree, right: Tree, values: dict[str, Any]) -> bool | None:
    digits = _DIGITS
    while True:
        found = _values(left, right, values, digits)
        if found is None:
            return None
        one, other, (largest, smallest) = found
        difference = abs(one - other)
        spread = (largest - smallest) * math.log10(2)
        context = Evaluation(digits, {}).context
        if difference > context.mpf(2) ** largest * context.mpf(10) ** (_GUARD_DIGITS - digits):
            return False
        if spread + 2 * _GUARD_DIGITS <= digits:
            return True
        if spread + 2 * _GUARD_DIGITS > _MAX_DIGITS:
            return None
        digits = int(spread) + 3 * _GUARD_DIGITS


def _real_at(left: Tree, right: Tree, values: dict[str, Any]) -> bool:
    found = _values(left, right, values, _DIGITS)
    return found is not None and not found[0].imag and not found[1].imag


def _values(
    left: Tree, right: Tree, values: dict[str, Any], digits: int
) -> tuple[Any, Any, tuple[int, int]] | None:
    results = []
    largest = smallest = 0
    for tree in (left, right):
        evaluation = Evaluation(digits, values)
        try:
            results.append(evaluation.value(tree))
        except TooLargeError:
            raise
        except (ArithmeticError, ValueError, TypeError):
            return None
        largest, smallest = max(largest, evaluation.largest), min(smallest, evaluation.smallest)
    return results[0], results[1], (largest, smallest)
