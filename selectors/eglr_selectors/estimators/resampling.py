"""How sure a difference between two strategies is, over problems."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from eglr_selectors.options import check_count, check_number

_CHUNK = 2**21
"""Resampled places at once: 48 MiB with their counts."""
_KEPT = 2**21
"""Counts that are kept for the next figure of as many problems: 16 MiB."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over problems with its confidence interval.

    Attributes:
        value: The mean; NaN if no problem is defined.
        low: Lower end.
        high: Upper end.
        problems: On how many problems both sides are defined.
        reason: Why it is undefined; empty if it is not.
    """

    value: float
    low: float
    high: float
    problems: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's exact test of two strategies on the same problems.

    Attributes:
        only_first: Problems that only the first solves.
        only_second: Problems that only the second solves.
        p_value: Two-sided; 1 where they never differ, NaN where no problem is defined.
    """

    only_first: int
    only_second: int
    p_value: float


def bootstrap(
    values: ArrayLike, *, confidence: float = 0.95, samples: int = 10_000, seed: int = 0
) -> Interval:
    """Returns the percentile bootstrap interval of a mean over problems.

    Efron and Tibshirani 1993, chapter 13. Undefined values are left out, and counted.

    Args:
        values: One per problem, ``[problems]``; NaN is undefined.
        confidence: Coverage of the interval.
        samples: Resamples of the problems.
        seed: Seed of the resampling.
    """
    check_number("confidence", confidence, low=0, high=1, above=True)
    check_count("samples", samples, low=1)
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return Interval(math.nan, math.nan, math.nan, 0, "no problem is defined")
    means = np.concatenate([drawn @ known for drawn in _resamples(len(known), samples, seed)]) / len(known)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(known.mean()), float(low), float(high), len(known))


def _resamples(problems: int, samples: int, seed: int) -> Iterable[np.ndarray]:
    """How often each resample has each problem, ``[resamples, problems]``, some resamples at a time.

    A table asks for the same ones for every figure: they are kept if they are few.
    """
    if samples * problems <= _KEPT:
        return _kept_resamples(problems, samples, seed)
    return _new_resamples(problems, samples, seed)


@functools.lru_cache(maxsize=2)
def _kept_resamples(problems: int, samples: int, seed: int) -> list[np.ndarray]:
    return list(_new_resamples(problems, samples, seed))


def _new_resamples(problems: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // problems)
    for start in range(0, samples, rows):
        count = min(rows, samples - start)
        places = rng.integers(problems, size=(count, problems))
        places += np.arange(count)[:, None] * problems
        drawn = np.bincount(places.ravel(), minlength=count * problems)
        yield drawn.reshape(count, problems).astype(np.float64)


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95, samples: int = 10_000, seed: int = 0
) -> Interval:
    """Returns the bootstrap interval of mean(first) - mean(second) over the same problems.

    Problems are resampled, each with both its values; one undefined on either side is left out.

    Raises:
        ValueError: If the two are not of the same problems.
    """
    a, b = _paired(first, second)
    return bootstrap(a - b, confidence=confidence, samples=samples, seed=seed)


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Tests whether two strategies solve equally many of the same problems, exactly.

    McNemar 1947: under the null hypothesis the problems that only one solves are coin tosses.
    Problems undefined on either side are left out.

    Raises:
        ValueError: If the two are not of the same problems, or hold other values than 0, 1 and NaN.
    """
    from scipy.stats import binomtest  # half a second of import, for this one function

    a, b = _paired(first, second)
    known = ~np.isnan(a) & ~np.isnan(b)
    if not np.isin([a[known], b[known]], [0, 1]).all():
        raise ValueError("mcnemar: expected 0, 1 or NaN for every problem")
    only_first, only_second = int(np.sum(a[known] > b[known])), int(np.sum(a[known] < b[known]))
    if not known.any():
        return McNemar(0, 0, math.nan)
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return McNemar(only_first, only_second, p_value)


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"expected two lists of the same problems, not shapes {a.shape} and {b.shape}")
    return a, b
