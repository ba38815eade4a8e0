"""Every selector on the grid and on as many plain rollouts, and the best of many, chosen fairly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from eglr_selectors import ParsedPool, available_selectors, default_selectors
from eglr_selectors.estimators import accuracy, choose_on_half, holm, mcnemar, paired_bootstrap

from lm_eval_eglr.reports.tables import Table, Text
from lm_eval_eglr.study.figures_in_text import NONE, mean, p_value, percent, points
from lm_eval_eglr.study.matched import Matched

FEWEST = 2
"""Tasks that can be taken together."""


def fair_selectors() -> list[str]:
    """The selectors that need no option and do not look at the reference, by name.

    Sorted, because the registry's order is that of imports, and the first of equal candidates is chosen.
    """
    known = available_selectors()
    return sorted(name for name in default_selectors() if not known[name].uses_reference)


def selectors(studies: Sequence[Matched]) -> Table:
    """Returns every fair selector on both pools with the difference, its test corrected for all of them."""
    names = [name for name in fair_selectors() if name not in ("greedy", "first")]
    header: list[str] = ["selector"]
    columns: list[list[str]] = []
    for each in studies:
        header += [f"{each.title}, grid", "plain", "grid less plain", "p, Holm"]
        grid = {name: accuracy(each.grid, name).values for name in names}
        plain = {name: accuracy(each.plain, name).values for name in names} if each.plain else {}
        raw = [_p(grid[name], plain[name]) if plain else np.nan for name in names]
        columns.append([percent(mean(grid[name])) for name in names])
        columns.append([percent(mean(plain[name])) if plain else NONE for name in names])
        columns.append([points(paired_bootstrap(grid[n], plain[n])) if plain else NONE for n in names])
        columns.append([p_value(p) for p in holm(raw)])
    rows = tuple(
        (Text(name), *(Text(column[place]) for column in columns))
        for place, name in enumerate(names)
        if any(column[place] != NONE for column in columns)
    )
    note = "per cent correct; McNemar's exact test, corrected for all rows of a task by Holm's method"
    return Table(tuple(header), rows, 1, (note,))


def halves(studies: Sequence[Matched]) -> Table:
    """Returns what the best of many ways is worth on the half of the problems that did not choose it."""
    asked = {each.title: _questions(each) for each in studies}
    together = _together([questions for questions in asked.values() if questions])
    if together:
        asked["all together"] = together
    rows = []
    for title, questions in asked.items():
        for question, (candidates, baseline) in questions.items():
            found = choose_on_half(candidates, baseline)
            rows.append(
                (
                    Text(title),
                    Text(question),
                    Text(str(found.candidates)),
                    Text(found.name),
                    Text(points(found.chosen)),
                    Text(points(found.reported)),
                    Text(f"{found.test.only_first}, {found.test.only_second}, {p_value(found.test.p_value)}"),
                )
            )
    header = (
        "task",
        "question",
        "tried",
        "chosen",
        "gain, choosing half",
        "gain, other half",
        "won, lost, p",
    )
    note = (
        "points; even problems choose, of equal candidates the first by name, odd problems report; every "
        "candidate that was tried is counted"
    )
    return Table(header, tuple(rows), 2, (note,))


Question = tuple[dict[str, np.ndarray], np.ndarray]
"""Candidates by name, and what they are compared with: success on every problem."""


def _questions(each: Matched) -> dict[str, Question]:
    """What is asked of a task, where the greedy column that it needs is there."""
    greedy = each.part(greedy=True)
    if not all(map(len, each.part(depth=each.baseline, greedy=True))):
        return {}
    base = accuracy(each.grid, "greedy").values
    axis = each.axis
    depths = {
        axis.name(depth): accuracy(each.part(depth=depth, greedy=True), "first").values
        for depth in each.depths
    }
    votes = _over(greedy)
    found = {
        f"one greedy {axis.level}, against plain greedy": (depths, base),
        f"selector over the greedy {axis.levels}, against plain greedy": (votes, base),
    }
    if each.plain:
        few = [parsed.subset(range(min(len(greedy[0]), len(parsed)))) for parsed in each.plain]
        majority = accuracy(few, "majority").values
        found["the same, against the majority of as many plain rollouts"] = (votes, majority)
    if each.plain and each.has_temperatures:
        question = "selector over the grid, against the majority of as many plain rollouts"
        found[question] = (_over(each.grid), accuracy(each.plain, "majority").values)
    return found


def _together(asked: Sequence[dict[str, Question]]) -> dict[str, Question]:
    """The questions of several tasks as one, for the candidates that all of them have."""
    found: dict[str, Question] = {}
    if len(asked) < FEWEST:
        return found
    for question in asked[0]:
        if all(question in each for each in asked):
            names = [
                name for name in asked[0][question][0] if all(name in each[question][0] for each in asked)
            ]
            candidates = {name: np.concatenate([each[question][0][name] for each in asked]) for name in names}
            if names:
                found[question] = (candidates, np.concatenate([each[question][1] for each in asked]))
    return found


def _over(pools: Sequence[ParsedPool]) -> dict[str, np.ndarray]:
    """Success of every fair selector that is defined on these pools."""
    found = {
        name: accuracy(pools, name).values for name in fair_selectors() if name not in ("greedy", "first")
    }
    return {name: values for name, values in found.items() if not np.isnan(values).all()}


def _p(first: np.ndarray, second: np.ndarray) -> float:
    return mcnemar(first, second).p_value
