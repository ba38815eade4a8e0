"""Estimates over a range of k."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from eglr_selectors.estimators.estimates import Estimates
from eglr_selectors.parsed import ParsedPool


def curve(
    estimator: Callable[[Sequence[ParsedPool], int], Estimates],
    pools: Sequence[ParsedPool],
    ks: Iterable[int] | None = None,
) -> dict[int, Estimates]:
    """Returns an estimator's figures for several k.

    Args:
        estimator: Of pools and k: :func:`pass_at_k`, :func:`maj_at_k`, :func:`best_of_k`.
        pools: The pools.
        ks: The values of k; by default the powers of two up to the smallest pool, and its size.
    """
    if ks is None:
        smallest = min((len(parsed) for parsed in pools), default=0)
        ks = sorted({*(2**i for i in range(smallest.bit_length())), smallest} - {0})
    return {k: estimator(pools, k) for k in ks}
