"""Estimators and statistics over the pools of a benchmark. Undefined is NaN, with its reason."""

from eglr_selectors.estimators.at_k import best_of_k, pass_at_k, selector_at_k
from eglr_selectors.estimators.axes import Axis, decompose, oracle_of, solved_by
from eglr_selectors.estimators.budgets import BudgetComparison, compare_at_budget
from eglr_selectors.estimators.costs import Cost, UnitCosts, cost_of, unit_costs
from eglr_selectors.estimators.estimates import Estimates, accuracies, accuracy, curve, score_selection
from eglr_selectors.estimators.majority_at_k import maj_at_k
from eglr_selectors.estimators.named import FigureAtK, figure_at_k
from eglr_selectors.estimators.resampling import Interval, McNemar, bootstrap, mcnemar, paired_bootstrap

__all__ = [
    "Axis",
    "BudgetComparison",
    "Cost",
    "Estimates",
    "FigureAtK",
    "Interval",
    "McNemar",
    "UnitCosts",
    "accuracies",
    "accuracy",
    "best_of_k",
    "bootstrap",
    "compare_at_budget",
    "cost_of",
    "curve",
    "decompose",
    "figure_at_k",
    "maj_at_k",
    "mcnemar",
    "oracle_of",
    "paired_bootstrap",
    "pass_at_k",
    "score_selection",
    "selector_at_k",
    "solved_by",
    "unit_costs",
]
