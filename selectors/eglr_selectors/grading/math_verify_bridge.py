"""math-verify inside a worker, and the guards on its True. Imports sympy: not for a host process."""

from __future__ import annotations

import math_verify
import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy
from sympy.core.relational import Relational

_READ = math_verify.LatexExtractionConfig(
    # A box or nothing: else a fraction is picked out of a text that cannot be read as a whole.
    boxed_match_priority=0,
    try_extract_without_anchor=False,
    # Units are the parent's affair: here a variable m would be dropped for a metre.
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    ),
)
_SET = (sympy.Set,)
_TUPLE = (sympy.Tuple,)
_MATRIX = (sympy.MatrixBase, sympy.MatrixExpr)
_SERIES = (sympy.Sum, sympy.Product, sympy.Integral)
_DIGITS = 60


def equal(gold: str, answer: str) -> tuple[bool, str]:
    """Compares two contents of boxes; returns whether they are equal, and why or why not."""
    left, right = _parsed(gold), _parsed(answer)
    if left is None or right is None:
        return False, "not read by math-verify"
    if left.has(sympy.nan, sympy.zoo) or right.has(sympy.nan, sympy.zoo):
        return False, "undefined value"
    if left.has(*_SERIES) or right.has(*_SERIES):
        same = _same_number(left, right)
        if same is not None:
            return same, "equal to 30 digits" if same else "different numbers"
    # math-verify is not symmetric; asking both ways makes classes independent of the order.
    for first, second in ((left, right), (right, left)):
        if not math_verify.verify(
            first, second, float_rounding=_DIGITS, numeric_precision=_DIGITS, timeout_seconds=None
        ):
            return False, "unequal for math-verify"
    return _guarded(left, right)


def _parsed(text: str) -> sympy.Basic | None:
    """Reads a box; decimals become exact fractions, as math-verify rounds floats to some decimals."""
    found = math_verify.parse(
        rf"\boxed{{{text}}}", [_READ], extraction_mode="first_match", parsing_timeout=None
    )
    first = found[0] if found else None
    if isinstance(first, _MATRIX):
        return first
    if not isinstance(first, sympy.Basic):
        _raise_resource_errors(text)
        return None
    floats = {number: sympy.Rational(str(number)) for number in first.atoms(sympy.Float)}
    return first.xreplace(floats) if floats else first


def _same_number(left: sympy.Basic, right: sympy.Basic) -> bool | None:
    """Compares constants with sums, products or integrals by value, which is found sooner than a form.

    Returns:
        Whether they agree to 30 digits; ``None`` if that cannot be told, or symbols are left.
    """
    if left.free_symbols or right.free_symbols:
        return None
    try:
        values = [sympy.N(side, 40) for side in (left, right)]
    except (ValueError, TypeError, ArithmeticError, AttributeError, NotImplementedError):
        return None
    if not all(value.is_Number and value.is_finite for value in values):
        return None
    difference = abs(values[0] - values[1]) / max(1, *(abs(value) for value in values))
    return True if difference < 1e-30 else False if difference > 1e-12 else None


def _raise_resource_errors(text: str) -> None:
    """Parses again what math-verify could not read: it swallows the want of memory with all other errors."""
    try:
        latex2sympy(text, normalization_config=None)
    except (MemoryError, RecursionError) as error:
        raise MemoryError from error
    except Exception:
        return


def _guarded(left: sympy.Basic, right: sympy.Basic) -> tuple[bool, str]:
    if isinstance(left, sympy.FiniteSet) != isinstance(right, sympy.FiniteSet):
        return False, "guard: values against an interval or a point"
    for kind in (_SET, _TUPLE, _MATRIX):
        if isinstance(left, kind) != isinstance(right, kind):
            return False, "guard: a set, tuple or matrix against something else"
    if isinstance(left, Relational) or isinstance(right, Relational):
        if not (isinstance(left, Relational) and isinstance(right, Relational)):
            return False, "guard: a relation against a value"
        if isinstance(left, sympy.Eq) or isinstance(right, sympy.Eq):
            # Equal solution sets are no evidence when both are empty.
            ratio = sympy.simplify((left.lhs - left.rhs) / (right.lhs - right.rhs))
            if not ratio.is_number or ratio.is_zero or not ratio.is_finite:
                return False, "guard: equations that are no multiples of each other"
    elif isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr):
        difference = left - right
        if difference.is_number and not _vanishes(difference, left, right):
            return False, "guard: equal only after rounding"
    return True, "equal for math-verify"


def _vanishes(difference: sympy.Expr, left: sympy.Expr, right: sympy.Expr) -> bool:
    if difference.is_zero:
        return True
    scale = max(abs(left.evalf(_DIGITS)), abs(right.evalf(_DIGITS)))
    return bool(abs(difference.evalf(_DIGITS)) <= scale * sympy.Float(10, _DIGITS) ** (20 - _DIGITS))
