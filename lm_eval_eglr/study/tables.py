"""All tables of a study, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lm_eval_eglr.reports.tables import Table
from lm_eval_eglr.study.likeness import correlations, worth
from lm_eval_eglr.study.matched import Matched
from lm_eval_eglr.study.selecting import halves, selectors
from lm_eval_eglr.study.single_rollouts import changes, depths, greedy
from lm_eval_eglr.study.structure import axes, budgets, cost, structure

TABLES: dict[str, Callable[[Sequence[Matched]], Table]] = {
    "structure": structure,
    "axes": axes,
    "budgets": budgets,
    "cost": cost,
    "selectors": selectors,
    "spans": depths,
    "greedy": greedy,
    "correlations": correlations,
    "worth": worth,
    "changes": changes,
    "halves": halves,
}
_TITLES = {
    "structure": "The structure of the claim",
    "axes": "Which axis solves which problems",
    "budgets": "At equal budgets",
    "cost": "What it costs",
    "selectors": "Selectors on both pools",
    "spans": "Single rollouts by {level}",
    "greedy": "Greedy {levels} against plain greedy decoding",
    "correlations": "How alike two rollouts are",
    "worth": "What a part of the grid is worth in plain rollouts",
    "changes": "Where {other} changes the greedy text",
    "halves": "The best of many, chosen on one half of the problems",
}


def titles(studies: Sequence[Matched]) -> dict[str, str]:
    """Returns the titles of the tables, in the words of the grids' depth axis."""
    axis = studies[0].axis
    other = "a span" if axis.symbol == "L" else "another number of recurrences"
    return {
        name: text.format(level=axis.level, levels=axis.levels, other=other) for name, text in _TITLES.items()
    }
