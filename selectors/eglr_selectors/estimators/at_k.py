"""What k rollouts of a problem would reach: pass@k, best-of-k, any selector at k.

All are means over the k-subsets of a problem's graded rollouts; rollouts that could not be graded are
left out, and a figure for which fewer than k remain is undefined.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from eglr_selectors.estimators.estimates import Estimates, exactly, gather, score_selection, unknown
from eglr_selectors.options import check_count
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import SelectFn, bind
from eglr_selectors.scores import scores_for
from eglr_selectors.verifiers.registry import VerifierLike, get_verifier

Row = tuple[float, float, str]


@dataclass(frozen=True, slots=True, eq=False)
class Graded:
    """The part of a pool that figures are counted on.

    Attributes:
        parsed: The whole pool.
        indices: Its rollouts whose answer could be graded.
        place: The problem's place among the others.
    """

    parsed: ParsedPool
    indices: list[int]
    place: int


def pass_at_k(pools: Iterable[ParsedPool], k: int) -> Estimates:
    """Returns the chance that at least one of k rollouts is correct: 1 - C(n - c, k) / C(n, k).

    Chen et al. 2021, arXiv 2107.03374, equation 1: unbiased for k draws without replacement.
    """

    def figure(graded: Graded) -> Row:
        right = sum(bool(graded.parsed.correct[i]) for i in graded.indices)
        return exactly(_pass(len(graded.indices), right, k))

    return over_graded(pools, k, figure)


def best_of_k(pools: Iterable[ParsedPool], k: int, verifier: VerifierLike | None = None) -> Estimates:
    """Returns the chance that the best scored of k rollouts is correct, as ``best_of_n`` would choose.

    Exact: the rollout of rank r is the best of C(n - r, k - 1) of the C(n, k) subsets.

    Args:
        pools: The pools.
        k: Size of the subsets.
        verifier: Gives the scores, of each whole pool; without one they are the pool's own, else the
            mean log-probabilities.
    """
    scorer = None if verifier is None else get_verifier(verifier)

    def figure(graded: Graded) -> Row:
        parsed = graded.parsed
        scores = scores_for(parsed.blind, scorer)
        if all(map(math.isnan, scores)):
            return unknown("no rollout has a score")
        scored = [i for i in graded.indices if parsed.classes[i] >= 0 and not math.isnan(scores[i])]
        ranked = sorted(scored, key=lambda i: -scores[i])
        correct = np.array([bool(parsed.correct[i]) for i in ranked], dtype=np.float64)
        ranks = np.arange(1, len(ranked) + 1)
        return exactly(float(correct @ _first_of_k(len(graded.indices), ranks, k)))

    return over_graded(pools, k, figure)


def selector_at_k(
    pools: Iterable[ParsedPool], selector: str | SelectFn, k: int, *, samples: int = 1000, seed: int = 0
) -> Estimates:
    """Returns the chance that a selector is right on k rollouts, kept in grid order.

    Exact where a problem has no more than ``samples`` subsets, else their mean over so many random
    ones, with its standard error. A problem's draws depend on the seed and its place alone.

    Args:
        pools: The pools.
        selector: A registered selector or any callable.
        k: Size of the subsets.
        samples: How many subsets are looked at, at most.
        seed: Seed of the draws.
    """
    check_count("samples", samples, low=2)
    bound = bind(selector)

    def figure(graded: Graded) -> Row:
        every = math.comb(len(graded.indices), k) <= samples
        chosen: Iterable[Sequence[int]] = (
            itertools.combinations(graded.indices, k)
            if every
            else _random_subsets(graded.indices, k, samples, np.random.default_rng([seed, graded.place]))
        )
        values = []
        for indices in chosen:
            subset = graded.parsed.subset(indices)
            value, _, reason = score_selection(subset, bound(subset))
            if reason:
                return unknown(reason)
            values.append(value)
        if every:
            return exactly(float(np.mean(values)))
        return float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(samples), ""

    return over_graded(pools, k, figure)


def over_graded(pools: Iterable[ParsedPool], k: int, figure: Callable[[Graded], Row]) -> Estimates:
    """Returns a figure of every problem's graded rollouts, undefined where they are fewer than k."""
    check_count("k", k, low=1)

    def row(place: int, parsed: ParsedPool) -> Row:
        indices = [i for i, correct in enumerate(parsed.correct) if correct is not None]
        if len(indices) < k:
            return unknown(f"k={k}: {len(indices)} of {len(parsed)} rollouts are graded")
        return figure(Graded(parsed, indices, place))

    return gather(row(place, parsed) for place, parsed in enumerate(pools))


def _pass(n: int, c: int, k: int) -> float:
    if n - c < k:
        return 1.0
    return -math.expm1(float(_log_comb(n - c, k) - _log_comb(n, k)))


def _first_of_k(n: int, ranks: np.ndarray, k: int) -> np.ndarray:
    """Returns C(n - r, k - 1) / C(n, k) for every rank r."""
    rest = n - ranks
    possible = rest >= k - 1
    logs = _log_comb(np.where(possible, rest, k - 1), k - 1) - _log_comb(n, k)
    return np.where(possible, np.exp(logs), 0.0)


def _log_comb(n: int | np.ndarray, k: int) -> np.ndarray:
    return _log_gamma(np.add(n, 1)) - math.lgamma(k + 1) - _log_gamma(np.subtract(n, k - 1))


# Not scipy's, which takes every command a quarter of a second to import.
_log_gamma = np.vectorize(math.lgamma, otypes=[np.float64])


def _random_subsets(
    indices: list[int], k: int, samples: int, rng: np.random.Generator
) -> Iterable[list[int]]:
    places = rng.random((samples, len(indices))).argpartition(k - 1, axis=1)[:, :k]
    return np.asarray(indices)[np.sort(places, axis=1)].tolist()
