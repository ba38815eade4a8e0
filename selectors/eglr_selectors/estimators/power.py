"""How many problems a paired comparison needs, before it is made, and how to read several at once after."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eglr_selectors.options import check_number


def problems_needed(difference: float, discordant: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Returns how many problems McNemar's test needs to see a difference.

    Connor 1987 (Biometrics 43, 207), equation 3: n = (z_{1-α/2} √d + z_power √(d - δ²))² / δ².

    Args:
        difference: δ, the difference of the two shares of solved problems.
        discordant: d, the share of problems that only one of the two solves; at least the difference.
        power: Chance of seeing it.
        alpha: Two-sided level of the test.

    Raises:
        ValueError: If a share is out of range, or the difference is larger than the discordant share.
    """
    size = abs(difference)
    check_number("difference", size, low=0, high=1, above=True)
    check_number("discordant", discordant, low=0, high=1, above=True)
    if size > discordant:
        raise ValueError(f"difference={difference!r}: expected at most discordant={discordant!r}")
    first, second = _quantiles(power, alpha)
    root = first * math.sqrt(discordant) + second * math.sqrt(discordant - size**2)
    return math.ceil((root / size) ** 2)


def detectable_difference(
    problems: int, discordant: float, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Returns the smallest difference that so many problems show, by the formula of :func:`problems_needed`.

    It is NaN where even a difference of the whole discordant share would not be seen.
    """
    check_number("discordant", discordant, low=0, high=1, above=True)
    first, second = _quantiles(power, alpha)
    # (δ √n - z₁ √d)² = z₂² (d - δ²) is quadratic in δ.
    a, b = problems + second**2, first * math.sqrt(problems * discordant)
    c = (first**2 - second**2) * discordant
    found = (b + math.sqrt(max(0.0, b * b - a * c))) / a
    return found if found <= discordant else math.nan


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for all tests that were made (Holm 1979); NaN is no test.

    Their rejections at level α are wrong for one true hypothesis or more with chance α at most.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        corrected[i] = highest
    return corrected


def _quantiles(power: float, alpha: float) -> tuple[float, float]:
    from scipy.stats import norm  # half a second of import

    check_number("power", power, low=0, high=1, above=True)
    check_number("alpha", alpha, low=0, high=1, above=True)
    return float(norm.ppf(1 - alpha / 2)), float(norm.ppf(power))
