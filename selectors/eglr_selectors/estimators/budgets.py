"""The joint grid against temperature alone, at the same budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from eglr_selectors.estimators.at_k import pass_at_k
from eglr_selectors.estimators.costs import pool_flops
from eglr_selectors.estimators.estimates import Estimates, gather, unknown
from eglr_selectors.estimators.majority_at_k import maj_at_k
from eglr_selectors.estimators.resampling import Interval, paired_bootstrap
from eglr_selectors.options import check_name
from eglr_selectors.parsed import ParsedPool

Budget = Literal["rollouts", "flops"]
Figure = Literal["pass", "maj"]

_ESTIMATORS: dict[str, Callable[[Sequence[ParsedPool], int], Estimates]] = {
    "pass": pass_at_k,
    "maj": maj_at_k,
}


@dataclass(frozen=True, slots=True, eq=False)
class BudgetComparison:
    """Two ways to spend one budget, problem by problem.

    Attributes:
        joint: The joint grid's figures.
        temperature: Temperature alone.
        joint_rollouts: How many rollouts of the grid the budget bought, per problem.
        temperature_rollouts: How many at span 0.
        difference: Mean of joint minus temperature, with its paired bootstrap interval.
    """

    joint: Estimates
    temperature: Estimates
    joint_rollouts: tuple[int, ...]
    temperature_rollouts: tuple[int, ...]
    difference: Interval


def compare_at_budget(
    joint: Sequence[ParsedPool],
    temperature: Sequence[ParsedPool],
    *,
    budget: Budget = "rollouts",
    figure: Figure = "pass",
    seed: int = 0,
) -> BudgetComparison:
    """Compares two pools of every problem at the smaller of their two budgets (this project).

    With budget ``rollouts`` both sides get k = min(n_joint, n_temperature) rollouts. With ``flops``
    each gets as many as the cheaper pool's cost buys at its own mean cost per rollout, rounded
    down; undefined where a cost is not known or buys none. Figures are means over all subsets of
    that size, so no side's luckiest rollouts are picked.

    Args:
        joint: Pools of the L × T grid.
        temperature: Pools of span 0 for the same problems, in the same order.
        budget: What is equal.
        figure: ``pass`` (an oracle's view) or ``maj`` (majority's).
        seed: Seed of the bootstrap, and of Monte Carlo where it is needed.

    Raises:
        ValueError: If the two are not of the same problems, or an option is unknown.
    """
    check_name("budget", budget, get_args(Budget))
    check_name("figure", figure, get_args(Figure))
    if len(joint) != len(temperature):
        raise ValueError(f"{len(joint)} joint pools for {len(temperature)} of temperature alone")
    shares = _shares_by_rollouts if budget == "rollouts" else _shares_by_flops
    sizes = [shares(a, b) for a, b in zip(joint, temperature, strict=True)]
    left = _figures(joint, [size[0] for size in sizes], budget, figure)
    right = _figures(temperature, [size[1] for size in sizes], budget, figure)
    return BudgetComparison(
        left,
        right,
        tuple(size[0] for size in sizes),
        tuple(size[1] for size in sizes),
        paired_bootstrap(left.values, right.values, seed=seed),
    )


def _shares_by_rollouts(joint: ParsedPool, temperature: ParsedPool) -> tuple[int, int]:
    k = min(len(joint), len(temperature))
    return k, k


def _shares_by_flops(joint: ParsedPool, temperature: ParsedPool) -> tuple[int, int]:
    costs = pool_flops(joint), pool_flops(temperature)
    if any(map(math.isnan, costs)):
        return 0, 0
    # Multiplied before it is divided: the cheaper side must get exactly all its rollouts.
    return int(len(joint) * min(costs) / costs[0]), int(len(temperature) * min(costs) / costs[1])


def _figures(pools: Sequence[ParsedPool], sizes: Sequence[int], budget: str, figure: str) -> Estimates:
    rows = []
    for parsed, k in zip(pools, sizes, strict=True):
        if k == 0:
            rows.append(unknown(f"the budget in {budget} is not known or buys no rollout"))
            continue
        one = _ESTIMATORS[figure]([parsed], k)
        rows.append((float(one.values[0]), float(one.standard_errors[0]), one.reasons[0]))
    return gather(rows)
