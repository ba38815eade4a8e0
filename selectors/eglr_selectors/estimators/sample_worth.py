"""How many plain samples a part of a pool is worth (this project)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eglr_selectors.estimators.at_k import pass_at_k
from eglr_selectors.estimators.axes import oracle_of
from eglr_selectors.estimators.resampling import Interval
from eglr_selectors.options import check_count
from eglr_selectors.parsed import ParsedPool


def worth_in_samples(
    parts: Sequence[ParsedPool],
    plain: Sequence[ParsedPool],
    *,
    confidence: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Returns the number k of plain samples whose mean pass@k is the oracle of the parts.

    Between two whole k the curve is a straight line. An end of the interval that the plain pools are too
    small for is infinite.

    Args:
        parts: A part of every problem's pool, such as its greedy column.
        plain: Plain samples of the same problems, in the same order.
        confidence: Coverage of the interval.
        samples: Resamples of the problems.
        seed: Seed of the resampling.

    Raises:
        ValueError: If the two are not of equally many problems.
    """
    check_count("samples", samples, low=1)
    if len(parts) != len(plain):
        raise ValueError(f"{len(parts)} parts for {len(plain)} pools of plain samples")
    oracle = oracle_of(parts).values
    most = min((len(parsed) for parsed in plain), default=0)
    curves = np.array([pass_at_k(plain, k).values for k in range(1, most + 1)]).reshape(most, len(plain))
    known = ~np.isnan(oracle) & ~np.isnan(curves).any(axis=0)
    oracle, curves = oracle[known], curves[:, known]
    if not known.any() or not most:
        return Interval(np.nan, np.nan, np.nan, 0, "no problem is defined")
    rng = np.random.default_rng(seed)
    draws = [_samples(oracle, curves)]
    for _ in range(samples):
        chosen = rng.integers(len(oracle), size=len(oracle))
        draws.append(_samples(oracle[chosen], curves[:, chosen]))
    ordered = np.sort(draws[1:])
    # An infinite draw has a rank but no distance, so the ends are ranks and not between two.
    low, high = (
        ordered[round(share * (samples - 1))] for share in ((1 - confidence) / 2, (1 + confidence) / 2)
    )
    return Interval(draws[0], float(low), float(high), len(oracle))


def _samples(oracle: np.ndarray, curves: np.ndarray) -> float:
    """Where the curve of the mean, from 0 samples that solve nothing, reaches the oracle's mean."""
    curve = np.concatenate([[0.0], curves.mean(axis=1)])
    target = float(oracle.mean())
    if target > curve[-1] + 1e-12:
        return float("inf")
    above = int(np.argmax(curve >= target - 1e-12))
    if above == 0:
        return 0.0
    return float(above - 1 + (target - curve[above - 1]) / (curve[above] - curve[above - 1]))
