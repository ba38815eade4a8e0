"""How a study's figures are written: shares in per cent, differences in points, with 95 % intervals."""

from __future__ import annotations

import math

import numpy as np
from eglr_selectors.estimators import Interval, bootstrap
from numpy.typing import ArrayLike

NONE = "–"


def share(values: ArrayLike) -> str:
    """A mean over problems, with its interval: ``34.2 (25.8 to 42.5)``."""
    found = bootstrap(values)
    if not found.problems:
        return NONE
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def points(found: Interval) -> str:
    """A difference in points: ``-2.5 (-6.7 to +1.7)``."""
    if not found.problems:
        return NONE
    value, low, high = (100 * each + 0.0 for each in (found.value, found.low, found.high))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def number(found: Interval, digits: int = 1) -> str:
    """A number with its interval; an infinite end is ``more``."""
    if not found.problems:
        return NONE
    low, high = (_plain(value, digits) for value in (found.low, found.high))
    return f"{_plain(found.value, digits)} ({low} to {high})"


def percent(value: float, digits: int = 1) -> str:
    """A share without an interval."""
    return NONE if math.isnan(value) else f"{100 * value:.{digits}f}"


def p_value(value: float) -> str:
    """A p-value: three digits, and ``< 0.001`` below them."""
    if math.isnan(value):
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def mean(values: ArrayLike) -> float:
    """The mean of what is defined; NaN if nothing is."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else math.nan


def _plain(value: float, digits: int) -> str:
    return "more" if math.isinf(value) else f"{value:.{digits}f}"
