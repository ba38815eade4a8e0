"""The joint grid against temperature alone, at the same budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from eglr_selectors.estimators.at_k import pass_at_k
from eglr_selectors.estimators.costs import pool_flops, unit_costs
from eglr_selectors.estimators.estimates import Estimates, gather, unknown
from eglr_selectors.estimators.majority_at_k import maj_at_k
from eglr_selectors.estimators.resampling import Interval, paired_bootstrap
from eglr_selectors.options import check_name
from eglr_selectors.parsed import ParsedPool

Budget = Literal["rollouts", "flops", "unshared_flops"]
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
        joint_rollouts: How many rollouts of the grid the budget bought, per problem. A fraction f between
            two whole numbers stands for a coin that buys the larger with chance f: the figure is then
            interpolated, and the mean cost is the budget exactly.
        temperature_rollouts: How many of temperature alone.
        difference: Mean of joint minus temperature, with its paired bootstrap interval.
    """

    joint: Estimates
    temperature: Estimates
    joint_rollouts: tuple[float, ...]
    temperature_rollouts: tuple[float, ...]
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
    each gets as many as the cheaper pool's cost buys at its own mean cost per rollout, work that the
    rollouts of a pool shared counted once; the cost of a part of a pool is not known then. With
    ``unshared_flops`` the cost of a pool is the sum over its rollouts, each decoded by itself after one
    prefill that both sides pay; it is known of parts of pools, too. Undefined where a cost is not known
    or buys less than one rollout. Figures are means over all subsets of that size, so no side's
    luckiest rollouts are picked.

    Args:
        joint: Pools of the depth × temperature grid.
        temperature: Pools of the baseline's depth (span 0, or the deepest recurrences) for the same problems,
            in the same order.
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
    sizes: list[tuple[float, float]]
    if budget == "rollouts":
        sizes = [(min(len(a), len(b)),) * 2 for a, b in zip(joint, temperature, strict=True)]
    else:
        cost = pool_flops if budget == "flops" else _unshared([*joint, *temperature])
        sizes = [_shares(a, b, cost) for a, b in zip(joint, temperature, strict=True)]
    left = _figures(joint, [size[0] for size in sizes], budget, figure)
    right = _figures(temperature, [size[1] for size in sizes], budget, figure)
    return BudgetComparison(
        left,
        right,
        tuple(size[0] for size in sizes),
        tuple(size[1] for size in sizes),
        paired_bootstrap(left.values, right.values, seed=seed),
    )


def _unshared(pools: Sequence[ParsedPool]) -> Callable[[ParsedPool], float]:
    units = unit_costs(pools)
    if units is None:
        return lambda parsed: math.nan
    return lambda parsed: math.fsum(map(units.unshared, parsed))


def _shares(
    joint: ParsedPool, temperature: ParsedPool, cost: Callable[[ParsedPool], float]
) -> tuple[float, float]:
    costs = cost(joint), cost(temperature)
    if not all(value > 0 for value in costs):
        return 0, 0
    # The cheaper side gets exactly all its rollouts, whatever rounding would make of them.
    return (
        len(joint) * (1.0 if costs[0] <= costs[1] else costs[1] / costs[0]),
        len(temperature) * (1.0 if costs[1] <= costs[0] else costs[0] / costs[1]),
    )


def _figures(pools: Sequence[ParsedPool], sizes: Sequence[float], budget: str, figure: str) -> Estimates:
    rows = []
    for parsed, size in zip(pools, sizes, strict=True):
        if size < 1:
            rows.append(unknown(f"the budget in {budget} is not known or buys no rollout"))
            continue
        below = math.floor(size)
        part = size - below
        low = _ESTIMATORS[figure]([parsed], below)
        high = _ESTIMATORS[figure]([parsed], below + 1) if part else low
        value = (1 - part) * low.values[0] + part * high.values[0]
        error = math.hypot((1 - part) * low.standard_errors[0], part * high.standard_errors[0])
        rows.append((float(value), float(error), low.reasons[0] or high.reasons[0]))
    return gather(rows)
