"""Figures per problem, with what is not known of them: accuracy of selectors, and any estimate over k."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from eglr_selectors.metrics import selection_outcome
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import SelectFn, bind
from eglr_selectors.selection import Selection


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """One figure per problem; undefined ones are NaN and say why.

    Attributes:
        values: The figures, ``[problems]``.
        standard_errors: Monte Carlo error of each, ``[problems]``; 0 where it was counted exactly.
            It says nothing of the spread over problems: that is for the bootstrap.
        reasons: Why a figure is undefined; empty where it is not.
    """

    values: np.ndarray
    standard_errors: np.ndarray
    reasons: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Mean over the problems where the figure is defined; NaN if there is none."""
        return float(np.nanmean(self.values)) if self.defined else math.nan

    @property
    def standard_error(self) -> float:
        """Monte Carlo error of :attr:`mean`; NaN if there is none."""
        if not self.defined:
            return math.nan
        return float(np.sqrt(np.nansum(self.standard_errors**2))) / self.defined

    @property
    def defined(self) -> int:
        """On how many problems the figure is defined."""
        return int(np.count_nonzero(~np.isnan(self.values)))


def gather(figures: Iterable[tuple[float, float, str]]) -> Estimates:
    """Stacks (value, standard error, reason) of every problem."""
    rows = list(figures)
    return Estimates(
        np.array([value for value, _, _ in rows], dtype=np.float64),
        np.array([error for _, error, _ in rows], dtype=np.float64),
        tuple(reason for _, _, reason in rows),
    )


def exactly(value: float) -> tuple[float, float, str]:
    """Returns the row of a figure that was counted."""
    return float(value), 0.0, ""


def unknown(reason: str) -> tuple[float, float, str]:
    """Returns the row of an undefined figure."""
    return math.nan, math.nan, reason


def accuracy(pools: Iterable[ParsedPool], selector: str | SelectFn) -> Estimates:
    """Returns 1 where the selector's answer is correct, 0 where it is wrong or there is none.

    It is undefined where the selector is, although there are answers (telemetry or a cell is missing),
    and where the chosen answer could not be graded.
    """
    bound = bind(selector)
    return gather(score_selection(parsed, bound(parsed)) for parsed in pools)


def accuracies(pools: Sequence[ParsedPool], selectors: Iterable[str | SelectFn]) -> dict[str, Estimates]:
    """Returns :func:`accuracy` of several selectors, by their labels."""
    bound = [bind(selector) for selector in selectors]
    return {selector.label: accuracy(pools, selector) for selector in bound}


def score_selection(parsed: ParsedPool, selection: Selection) -> tuple[float, float, str]:
    """Returns (1.0, 0.0 or NaN; 0; the reason of NaN) for one selection from a pool with its reference."""
    outcome = selection_outcome(parsed, selection)
    if outcome == "undefined":
        return unknown(selection.reason)
    if outcome == "no_reference":
        return unknown("there is no reference")
    if outcome == "ungraded":
        return unknown("the chosen answer could not be graded")
    return exactly(outcome == "correct")


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
