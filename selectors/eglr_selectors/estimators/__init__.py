"""Estimators and statistics over the pools of a benchmark. Undefined is NaN, with its reason."""

from eglr_selectors.estimators.at_k import best_of_k, pass_at_k, selector_at_k
from eglr_selectors.estimators.axes import Axis, decompose, oracle_of, solved_by
from eglr_selectors.estimators.budgets import BudgetComparison, compare_at_budget
from eglr_selectors.estimators.costs import Cost, UnitCosts, cost_of, unit_costs
from eglr_selectors.estimators.dependence import Dependence, dependence, success_matrix
from eglr_selectors.estimators.estimates import Estimates, accuracies, accuracy, curve, score_selection
from eglr_selectors.estimators.first_changes import FirstChange, first_changes
from eglr_selectors.estimators.halves import HalvesChoice, choose_on_half
from eglr_selectors.estimators.majority_at_k import maj_at_k
from eglr_selectors.estimators.named import FigureAtK, figure_at_k
from eglr_selectors.estimators.power import detectable_difference, holm, problems_needed
from eglr_selectors.estimators.resampling import Interval, McNemar, bootstrap, mcnemar, paired_bootstrap
from eglr_selectors.estimators.sample_worth import worth_in_samples

__all__ = [
    "Axis",
    "BudgetComparison",
    "Cost",
    "Dependence",
    "Estimates",
    "FigureAtK",
    "FirstChange",
    "HalvesChoice",
    "Interval",
    "McNemar",
    "UnitCosts",
    "accuracies",
    "accuracy",
    "best_of_k",
    "bootstrap",
    "choose_on_half",
    "compare_at_budget",
    "cost_of",
    "curve",
    "decompose",
    "dependence",
    "detectable_difference",
    "figure_at_k",
    "first_changes",
    "holm",
    "maj_at_k",
    "mcnemar",
    "oracle_of",
    "paired_bootstrap",
    "pass_at_k",
    "problems_needed",
    "score_selection",
    "selector_at_k",
    "solved_by",
    "success_matrix",
    "unit_costs",
    "worth_in_samples",
]
