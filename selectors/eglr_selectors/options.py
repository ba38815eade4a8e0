"""Checks of option values, with messages that name the option, the value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def check_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above: bool = False
) -> float:
    """Returns a finite number from ``low`` (excluded if ``above``) to ``high``.

    Raises:
        ValueError: If it is none.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not (low < value if above else low <= value) or value > high:
        bounds = f" {'above' if above else 'of at least'} {low:g}" if low > -math.inf else ""
        bounds += f" and at most {high:g}" if high < math.inf else ""
        raise ValueError(f"{name}={value!r}: expected a number{bounds}")
    return float(value)


def check_count(name: str, value: Any, low: int = 0) -> int:
    """Returns a whole number of at least ``low``.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name}={value!r}: expected a whole number of at least {low}")
    return value


def check_name(name: str, value: Any, allowed: Iterable[str]) -> str:
    """Returns one of the allowed words.

    Raises:
        ValueError: If it is none of them.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(allowed)}")
    return value


def check_range(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    integer: bool = False,
    open_low: bool = False,
) -> None:
    """Raises ValueError unless ``value`` is a number in [low, high], or in (low, high] if ``open_low``."""
    number = isinstance(value, int) if integer else isinstance(value, (int, float))
    above = number and (low < value if open_low else low <= value)  # comparisons with NaN are false
    if above and value <= high and not isinstance(value, bool):
        return
    noun = "an integer" if integer else "a number"
    relation = ">" if open_low else ">="
    upper = "" if high == math.inf else f" and <= {high:g}"
    raise ValueError(f"{name}={value!r}: expected {noun} {relation} {low:g}{upper}")


def check_finite(name: str, value: float) -> None:
    """Raises ValueError for an infinite number."""
    if value == math.inf:
        raise ValueError(f"{name}={value!r}: expected a finite number")
