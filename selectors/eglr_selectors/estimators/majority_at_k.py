"""Expected maj@k, by counting the subsets that the right answer wins."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import numpy as np

from eglr_selectors.estimators.at_k import Graded, over_graded, selector_at_k
from eglr_selectors.estimators.estimates import Estimates, exactly
from eglr_selectors.parsed import ParsedPool

_LARGEST = 500
"""Largest pool that is counted: binomial coefficients of larger ones leave double precision's range."""


def maj_at_k(pools: Iterable[ParsedPool], k: int, *, samples: int = 1000, seed: int = 0) -> Estimates:
    """Returns the chance that majority is right on k rollouts of a problem, ties to the first in grid order.

    Exact for pools of up to 500 rollouts, by counting (this project); beyond, a seeded Monte Carlo
    mean with its standard error. At k = 1 it is pass@1, at k = n what ``majority`` gives.

    Args:
        pools: The pools.
        k: Size of the subsets.
        samples: Subsets drawn for a pool too large to count.
        seed: Seed of these draws.
    """
    pools = list(pools)
    if any(len(parsed) > _LARGEST for parsed in pools):
        return selector_at_k(pools, "majority", k, samples=samples, seed=seed)

    def figure(graded: Graded) -> tuple[float, float, str]:
        correct = [graded.parsed.correct[i] is True for i in graded.indices]
        classes = [graded.parsed.classes[i] for i in graded.indices]
        return exactly(_count(np.array(classes), np.array(correct), k) / math.comb(len(classes), k))

    return over_graded(pools, k, figure)


@functools.cache
def _binomials() -> np.ndarray:
    """C(n, k) of all n and k up to the largest pool: Pascal's triangle, ``[n, k]``, 0 where k > n."""
    table = np.zeros((_LARGEST + 1, _LARGEST + 1))
    table[:, 0] = 1
    for n in range(1, len(table)):
        table[n, 1:] = table[n - 1, 1:] + table[n - 1, :-1]
    return table


def _count(classes: np.ndarray, right: np.ndarray, k: int) -> float:
    """Counts the k-subsets whose majority is right, by each rollout's class and whether it is right.

    The winner has m votes, the first of them rollout p, m - 1 from its class after p. Any other class
    has fewer than m votes, or m that all come after p; those without an answer do not matter. So each
    (p, m) contributes C(after(p), m - 1) times the coefficient of x^(k - m) in a product of one
    polynomial per other class. Classes of fewer than m rollouts are free, as those without an answer are:
    together they are one binomial.
    """
    comb = _binomials()
    numbers = [number for number in set(classes.tolist()) if number >= 0]
    # after[i][p]: members of class i that come after rollout p
    after = {number: np.cumsum((classes == number)[::-1])[::-1] - (classes == number) for number in numbers}
    size = {number: int(np.count_nonzero(classes == number)) for number in numbers}
    total = 0.0
    for winner in set(classes[right].tolist()):
        rows = np.flatnonzero(right & (classes == winner))
        own = after[winner][rows]
        for votes in range(1, min(k, int(own.max()) + 1) + 1):
            rivals = [number for number in numbers if number != winner and size[number] >= votes]
            free = len(classes) - size[winner] - sum(size[number] for number in rivals)
            product = np.tile(comb[free, : k - votes + 1], (len(rows), 1))
            for number in rivals:
                terms = np.empty((len(rows), votes + 1))
                terms[:, :votes] = comb[size[number], :votes]
                terms[:, votes] = comb[after[number][rows], votes]
                product = _multiply(product, terms)
            total += float(np.sum(comb[own, votes - 1] * product[:, -1]))
    return total


def _multiply(polynomials: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Returns row-wise products of polynomials, cut to the columns of the first."""
    product = np.zeros_like(polynomials)
    width = polynomials.shape[1]
    for power in range(min(factors.shape[1], width)):
        product[:, power:] += factors[:, power : power + 1] * polynomials[:, : width - power]
    return product
