"""The verdict of a study in three lines that can be quoted, and its power before it begins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from eglr_selectors.estimators import (
    Interval,
    accuracy,
    detectable_difference,
    oracle_of,
    paired_bootstrap,
    problems_needed,
)

from lm_eval_eglr.study.figures_in_text import mean, percent, points
from lm_eval_eglr.study.matched import Matched

DISCORDANT = 0.08
"""Share of problems that only one of two pools of 16 solved, where it was measured: 0.06 to 0.09."""


def power_statement(
    problems: Mapping[str, int], difference: float = 0.03, discordant: float = DISCORDANT
) -> list[str]:
    """Says what so many problems can show, before any is decoded.

    Args:
        problems: Number of problems by task.
        difference: The difference of two shares of solved problems that is of interest.
        discordant: Expected share of problems that only one of the two solves.

    Raises:
        ValueError: If the difference is larger than the discordant share, or either is no share.
    """
    needed = problems_needed(difference, discordant)
    lines = [
        f"to see {100 * difference:.1f} points between the grid and as many plain rollouts takes {needed} "
        f"problems (McNemar's test, two-sided 5 %, power 80 %, if only one of the two solves "
        f"{100 * discordant:.0f} % of them)"
    ]
    named = {**problems, **({"all together": sum(problems.values())} if len(problems) > 1 else {})}
    for name, count in named.items():
        smallest = detectable_difference(count, discordant) if count else math.nan
        shown = (
            "not even that share would show"
            if math.isnan(smallest)
            else f"they show {100 * smallest:.1f} points"
        )
        verb = "enough" if count >= needed else "too few"
        lines.append(f"{name}: {count} problems, {verb}; {shown}")
    return lines


def verdict(studies: Sequence[Matched]) -> list[str]:
    """Says in three lines what was found, at which budget, and how sure it is."""
    paired = [each for each in studies if each.plain and each.has_temperatures]
    if not paired:
        plain = "span 0" if studies[0].axis.symbol == "L" else "its deepest recurrences"
        return [f"no verdict: no grid has sampled cells and a run of {plain} alone for the same problems"]
    names = _listed([each.title for each in paired])
    size = _listed(sorted({str(len(each.cells)) for each in paired}))
    figures = {
        "greedy": [mean(accuracy(each.grid, "greedy").values) for each in paired],
        "layers": [mean(oracle_of(each.part(greedy=True)).values) for each in paired],
        "temperature": [mean(oracle_of(each.part(depth=each.baseline)).values) for each in paired],
        "grid": [mean(oracle_of(each.grid).values) for each in paired],
        "plain": [mean(oracle_of(each.plain).values) for each in paired],
    }
    shown = {name: _listed([percent(value) for value in values]) for name, values in figures.items()}
    views = {
        "greedy": "greedy decoding",
        "layers": f"the {paired[0].axis.noun} axis",
        "temperature": "the temperature axis",
        "grid": f"the grid of {size}",
    }
    parts = [
        f"{view} {shown[name]} %" for name, view in views.items() if not any(map(math.isnan, figures[name]))
    ]
    lines = [
        f"With an oracle more rollouts solve more, as published. On {names}: {', '.join(parts)}.",
    ]
    oracle, majority = (pooled_difference(paired, name) for name in ("oracle", "majority"))
    said = _said(oracle, paired[0].axis.noun)
    lines.append(
        f"At equal numbers {said}: {size} plain rollouts solve {shown['plain']} %. Grid less plain: "
        f"{points(oracle)} points by the oracle, {points(majority)} by the majority vote{_excludes(paired)}."
    )
    share = discordant_share(paired)
    smallest = detectable_difference(oracle.problems, share) if share else math.nan
    seen = (
        "the two hardly ever differ"
        if math.isnan(smallest)
        else f"a true difference of {100 * smallest:.1f} points would have shown with a chance of 80 %"
    )
    lines.append(
        f"How sure: on {oracle.problems} problems {seen}; gains by the oracle of more than "
        f"{100 * max(0.0, oracle.high):.1f} points are outside the 95 % interval."
    )
    return lines


def pooled_difference(studies: Sequence[Matched], selector: str) -> Interval:
    """Returns the grid less plain rollouts over the problems of all tasks together."""
    first = np.concatenate([accuracy(each.grid, selector).values for each in studies])
    second = np.concatenate([accuracy(each.plain, selector).values for each in studies])
    return paired_bootstrap(first, second)


def discordant_share(studies: Sequence[Matched]) -> float:
    """Share of problems that only one of the two oracles solves."""
    first = np.concatenate([accuracy(each.grid, "oracle").values for each in studies])
    second = np.concatenate([accuracy(each.plain, "oracle").values for each in studies])
    return mean(np.abs(first - second))


def _said(difference: Interval, noun: str) -> str:
    if difference.low > 0:
        return f"the {noun} axis adds to temperature alone"
    if difference.high < 0:
        return "the grid solves less than temperature alone"
    return f"the {noun} axis adds nothing that could be shown"


def _excludes(studies: Sequence[Matched]) -> str:
    """Names the tasks on which an interval excludes zero."""
    found = []
    for each in studies:
        for selector in ("oracle", "majority"):
            one = pooled_difference([each], selector)
            if one.low > 0 or one.high < 0:
                found.append(f"{selector} {points(one)} on {each.title}")
    if not found:
        return "; on no task does an interval exclude zero"
    return f"; single tasks that exclude zero: {_listed(found)}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
