"""What each axis solves alone, both together, and at the same budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eglr_selectors import ParsedPool, get_selector
from eglr_selectors.depth_axis import baseline_depth
from eglr_selectors.estimators import (
    BudgetComparison,
    Estimates,
    accuracy,
    bootstrap,
    compare_at_budget,
    oracle_of,
    pass_at_k,
)

from lm_eval_eglr.reports.baseline_runs import TemperatureRun, cells_of, depth_axis, is_grid, paired_pools
from lm_eval_eglr.reports.leaderboard import percent
from lm_eval_eglr.reports.page_budget import Progress

BUDGETS = {
    "rollouts": "equal rollouts",
    "unshared_flops": "equal FLOPs, each rollout decoded by itself",
    "flops": "equal FLOPs, shared work counted once",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the headline.

    Attributes:
        name: What it is.
        value: The figure with its unit.
        detail: Its interval, or what it rests on.
    """

    name: str
    value: str
    detail: str


Comparisons = Mapping[tuple[str, str], BudgetComparison]
"""A grid against plain samples, by budget and figure."""


def budget_comparisons(
    pools: Sequence[ParsedPool],
    temperature: TemperatureRun | None = None,
    progress: Progress = lambda items, what: items,
    what: str = "Comparing",
) -> Comparisons:
    """Compares a grid with plain samples at every budget that both know; without a grid there is nothing.

    Args:
        pools: The pools.
        temperature: A run of plain samples of the same problems; by default the grid's own rollouts of its
            baseline (span 0, or the deepest recurrences) stand for it, whose shared cost is not known.
        progress: Is handed the comparisons to make.
        what: Label of the progress bar.
    """
    if not is_grid(pools):
        return {}
    budgets = ["rollouts", "unshared_flops", *(["flops"] if temperature is not None else [])]
    pairs = [(budget, figure) for budget in budgets for figure in ("pass", "maj")]
    joint, plain = paired_pools(pools, temperature)
    return {
        (budget, figure): compare_at_budget(joint, plain, budget=budget, figure=figure)
        for budget, figure in progress(pairs, what)
    }


def headline(
    pools: Sequence[ParsedPool], comparisons: Comparisons, temperature: TemperatureRun | None = None
) -> list[Figure]:
    """Returns the figures that sum a task up.

    Of a grid: the oracles of its axes and of the whole, and the grid against temperature alone at equal
    budgets. Of any other pools: one rollout, the majority, the oracle.

    Args:
        pools: The pools.
        comparisons: What :func:`budget_comparisons` returns of them.
        temperature: The run of plain samples that was compared.
    """
    if not is_grid(pools):
        return [
            _figure("One rollout, mean", pass_at_k(pools, 1), _rollouts([1])),
            _figure("Majority of all rollouts", accuracy(pools, get_selector("majority")), _sizes(pools)),
            _figure("Any rollout, oracle", oracle_of(pools), _sizes(pools)),
        ]
    axis, baseline = depth_axis(pools), baseline_depth(cells_of(pools))
    figures = [
        _figure(name, oracle_of(pools, depths, temperatures), _sizes(pools, depths, temperatures))
        for name, depths, temperatures in (
            ("Temperature only, oracle", [baseline], None),
            (f"{axis.parts.capitalize()} only, oracle", None, [0.0]),
            ("Joint grid, oracle", None, None),
        )
    ]
    _, plain = paired_pools(pools, temperature)
    missing = f"there are no rollouts of {axis.name(baseline)}" if not all(map(len, plain)) else ""
    return figures + [
        _comparison(compared, missing, budget, figure) for (budget, figure), compared in comparisons.items()
    ]


def _comparison(compared: BudgetComparison, missing: str, budget: str, figure: str) -> Figure:
    name = f"Joint minus temperature, {figure}@k at {BUDGETS[budget]}"
    difference = compared.difference
    if math.isnan(difference.value):
        return Figure(name, "–", f"not defined: {missing or 'the cost is not known'}")
    left, right = _mean_size(compared.joint_rollouts), _mean_size(compared.temperature_rollouts)
    k = f"k = {left}" if budget == "rollouts" else f"k = {left} joint, {right} temperature"
    return Figure(
        name,
        f"{100 * difference.value:+.1f} points",
        f"{k}; 95 %: {_points(difference.low)} to {_points(difference.high)}",
    )


def _figure(name: str, estimates: Estimates, rollouts: str) -> Figure:
    interval = bootstrap(estimates.values)
    if not interval.problems:
        reason = next((reason for reason in estimates.reasons if reason), interval.reason)
        return Figure(name, "–", f"not defined: {reason}")
    detail = f"{rollouts}; 95 %: {percent(interval.low)} to {percent(interval.high)}"
    if interval.problems < len(estimates.values):
        detail += f"; {interval.problems} of {len(estimates.values)} problems"
    return Figure(name, f"{percent(interval.value)} %", detail)


def _sizes(
    pools: Sequence[ParsedPool], depths: list[int] | None = None, temperatures: list[float] | None = None
) -> str:
    def chosen(parsed: ParsedPool) -> int:
        return sum(
            (depths is None or rollout.cell.depth in depths)
            and (temperatures is None or rollout.cell.temperature in temperatures)
            for rollout in parsed
        )

    return _rollouts(sorted({chosen(parsed) for parsed in pools}))


def _rollouts(sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return f"{sizes[0]} rollout" + ("s" if sizes[0] != 1 else "")
    return f"{sizes[0]} to {sizes[-1]} rollouts"


def _mean_size(sizes: Sequence[float]) -> str:
    known = [size for size in sizes if size >= 1]
    text = f"{sum(known) / len(known):.3g}"
    return text if max(known) - min(known) < 1e-9 else f"{text} on average"


def _points(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:+.1f}"
