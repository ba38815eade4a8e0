"""Whether what a selector chose is correct."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eglr_selectors.estimators.estimates import Estimates, exactly, gather, unknown
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import Choice, bind
from eglr_selectors.selection import Selection


def accuracy(pools: Iterable[ParsedPool], selector: str | Choice) -> Estimates:
    """Returns 1 where the selector's answer is correct, 0 where it is wrong or there is none.

    It is undefined where the selector is, although there are answers (telemetry or a cell is missing),
    and where the chosen answer could not be graded.
    """
    bound = bind(selector)
    return gather(score_selection(parsed, bound(parsed)) for parsed in pools)


def accuracies(pools: Sequence[ParsedPool], selectors: Iterable[str | Choice]) -> dict[str, Estimates]:
    """Returns :func:`accuracy` of several selectors, by their labels."""
    bound = [bind(selector) for selector in selectors]
    return {selector.label: accuracy(pools, selector) for selector in bound}


def score_selection(parsed: ParsedPool, selection: Selection) -> tuple[float, float, str]:
    """Returns (1.0, 0.0 or NaN; 0; the reason of NaN) for one selection from a pool with its reference."""
    if parsed.reference is None:
        return unknown("there is no reference")
    if not selection.defined:
        return unknown(selection.reason)
    if selection.index is None:
        return exactly(0)
    correct = parsed.correct[selection.index]
    return unknown("the chosen answer could not be graded") if correct is None else exactly(correct)
