"""All tables of a study, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lm_eval_eglr.reports.tables import Table
from lm_eval_eglr.study.likeness import correlations, worth
from lm_eval_eglr.study.matched import Matched
from lm_eval_eglr.study.selecting import halves, selectors
from lm_eval_eglr.study.single_rollouts import changes, greedy, spans
from lm_eval_eglr.study.structure import axes, budgets, cost, structure

TABLES: dict[str, Callable[[Sequence[Matched]], Table]] = {
    "structure": structure,
    "axes": axes,
    "budgets": budgets,
    "cost": cost,
    "selectors": selectors,
    "spans": spans,
    "greedy": greedy,
    "correlations": correlations,
    "worth": worth,
    "changes": changes,
    "halves": halves,
}
TITLES = {
    "structure": "The structure of the claim",
    "axes": "Which axis solves which problems",
    "budgets": "At equal budgets",
    "cost": "What it costs",
    "selectors": "Selectors on both pools",
    "spans": "Single rollouts by span",
    "greedy": "Greedy spans against plain greedy decoding",
    "correlations": "How alike two rollouts are",
    "worth": "What a part of the grid is worth in plain rollouts",
    "changes": "Where a span changes the greedy text",
    "halves": "The best of many, chosen on one half of the problems",
}
