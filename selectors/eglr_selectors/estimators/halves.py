"""What is left of the best of many where it was not chosen: two halves of the problems (this project)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from eglr_selectors.estimators.resampling import Interval, McNemar, mcnemar, paired_bootstrap


@dataclass(frozen=True, slots=True)
class HalvesChoice:
    """The best of several candidates on one half of the problems, and what it is worth on the other.

    Attributes:
        name: The candidate with the largest mean gain over the baseline on the choosing half; the first of
            equal ones.
        candidates: How many there were.
        chosen: Its gain on the half that chose it: the gain of a winner, too high.
        reported: Its gain on the other half.
        test: McNemar's test on that half: problems that only the candidate, and only the baseline, solves.
    """

    name: str
    candidates: int
    chosen: Interval
    reported: Interval
    test: McNemar


def choose_on_half(
    candidates: Mapping[str, ArrayLike], baseline: ArrayLike, *, seed: int = 0
) -> HalvesChoice:
    """Lets the problems at even places choose a candidate and those at odd places report it.

    Args:
        candidates: Success on every problem by name, ``[problems]``: 1, 0 or NaN.
        baseline: The same of what they are compared with.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: If there is no candidate, or lengths differ.
    """
    base = np.asarray(baseline, dtype=np.float64)
    table = {name: np.asarray(values, dtype=np.float64) for name, values in candidates.items()}
    if not table:
        raise ValueError("candidates: expected at least one")
    for name, values in table.items():
        if values.shape != base.shape:
            raise ValueError(f"candidates[{name!r}]: {len(values)} values for {len(base)} problems")
    gains = {name: paired_bootstrap(values[::2], base[::2], seed=seed) for name, values in table.items()}
    known = [name for name in gains if not np.isnan(gains[name].value)]
    if not known:
        raise ValueError("candidates: none is defined on the half that chooses")
    name = max(known, key=lambda each: gains[each].value)
    return HalvesChoice(
        name,
        len(table),
        gains[name],
        paired_bootstrap(table[name][1::2], base[1::2], seed=seed),
        mcnemar(table[name][1::2], base[1::2]),
    )
