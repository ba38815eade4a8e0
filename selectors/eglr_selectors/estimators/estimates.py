"""Figures per problem, with what is not known of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


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
