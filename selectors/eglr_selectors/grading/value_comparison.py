"""Whether two values are the same: their units, percent signs and tolerance, then the numbers or formulas."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from eglr_selectors.grading.arithmetic import TooLargeError, exact, symbols
from eglr_selectors.grading.formula_tokens import Tree
from eglr_selectors.grading.numeric import approximate, facts, same_value
from eglr_selectors.grading.parsed_answer import ParsedAnswer, Value
from eglr_selectors.grading.rules import Rules
from eglr_selectors.grading.units import same_dimension
from eglr_selectors.grading.verdict import Path


@dataclass(frozen=True, slots=True)
class Comparison:
    """Equal, unequal, or ``None`` where only math-verify can tell."""

    equal: bool | None
    path: Path
    reason: str


OPEN = Comparison(None, "math-verify", "not decided by parsing")


def compare_values(left: ParsedAnswer, right: ParsedAnswer, rules: Rules) -> Comparison:
    """Units first, then percent signs, then the values themselves."""
    assert isinstance(left, Value)
    assert isinstance(right, Value)
    one, other = left.tree, right.tree
    if left.unit and right.unit and left.unit != right.unit:
        sizes = same_dimension(left.unit, right.unit)
        if sizes is None:
            return Comparison(False, "rule", "different units")
        one, other = _scaled(one, sizes[0]), _scaled(other, sizes[1])
    if left.percent != right.percent and (left.unit or right.unit):
        return Comparison(False, "rule", "a percentage against a quantity")
    if left.percent != right.percent:
        # 50 % is 0.5; whether it is 50 too is the benchmark's affair.
        plain, marked = (other, one) if left.percent else (one, other)
        exactly = compare_trees(plain, _scaled(marked, Fraction(1, 100)), rules.relative_tolerance)
        if exactly.equal or rules.percent == "strict":
            return exactly
    found = compare_trees(one, other, rules.relative_tolerance)
    if found.path == "numeric" and not found.equal and (written := _same_imaginary(one, other)):
        return compare_trees(*written, rules.relative_tolerance)
    return found


def _same_imaginary(one: Tree, other: Tree) -> tuple[Tree, Tree] | None:
    """Reads the I of one side as the i of the other one, as computer algebra writes it."""
    names = "I" in symbols(one), "I" in symbols(other)
    units = facts(one).imaginary, facts(other).imaginary
    if names == (False, True) and units == (True, False):
        return one, _with_unit(other)
    if names == (True, False) and units == (False, True):
        return _with_unit(one), other
    return None


def _with_unit(tree: Tree) -> Tree:
    if tree == ("symbol", "I"):
        return ("constant", "i")
    return tuple(_with_unit(part) if isinstance(part, tuple) else part for part in tree)


def _scaled(tree: Tree, factor: Fraction) -> Tree:
    return ("*", tree, ("number", factor))


def compare_trees(left: Tree, right: Tree, tolerance: float = 0.0) -> Comparison:
    try:
        one, other = facts(left).rational, facts(right).rational
        if one is not None and other is not None:
            if one == other:
                return Comparison(True, "number", "equal numbers")
            return _tolerated(one, other, tolerance, "number")
        same = same_value(left, right)
    except TooLargeError:
        return Comparison(False, "hazard", "too large to compute: only equal strings count")
    except ZeroDivisionError:
        return Comparison(False, "number", "undefined value")
    if same is None:
        return OPEN
    if same:
        return Comparison(True, "numeric", "equal at fixed points")
    if tolerance:
        values = approximate(left), approximate(right)
        if all(abs(value) < 1e300 for value in values):
            return _tolerated(Fraction(values[0]), Fraction(values[1]), tolerance, "numeric")
    return Comparison(False, "numeric", "different at a fixed point")


def _tolerated(one: Fraction, other: Fraction, tolerance: float, path: Path) -> Comparison:
    """The larger of both is the reference, so that the order does not matter."""
    if tolerance and abs(one - other) <= Fraction(tolerance) * max(abs(one), abs(other)):
        return Comparison(True, "rule", "equal within the tolerance")
    return Comparison(False, path, "different numbers")


def integer_value(tree: Tree) -> int | None:
    try:
        value = exact(tree)
    except ArithmeticError:
        return None
    return value.numerator if value.denominator == 1 else None
