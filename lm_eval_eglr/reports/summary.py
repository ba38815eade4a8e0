"""What a page says first: one sentence and a small table, the grid and plain sampling at as many rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eglr_selectors import ParsedPool, get_selector
from eglr_selectors.estimators import (
    BudgetComparison,
    Estimates,
    accuracy,
    bootstrap,
    oracle_of,
    pass_at_k,
)
from eglr_selectors.estimators.resampling import Interval

from lm_eval_eglr.reports.baseline_runs import is_grid
from lm_eval_eglr.reports.equal_budget import points
from lm_eval_eglr.reports.headline import Comparisons
from lm_eval_eglr.reports.leaderboard import percent


@dataclass(frozen=True, slots=True)
class Summary:
    """The first lines of a page.

    Attributes:
        sentence: What was found, in words.
        header: Names of the columns; the first, of the rows' names, is empty.
        rows: A name and one cell per column.
    """

    sentence: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def summary(pools: Sequence[ParsedPool], comparisons: Comparisons) -> Summary:
    """Returns the first lines of a page on these pools.

    Args:
        pools: The pools of one task.
        comparisons: What :func:`~lm_eval_eglr.reports.headline.budget_comparisons` returns of them.
    """
    if not is_grid(pools):
        return _of_plain_pools(pools)
    found = [comparisons["rollouts", figure] for figure in ("pass", "maj")]
    k = _size(found[0].joint_rollouts)
    rows = (
        (f"Grid, {k} rollouts", *(_with_interval(each.joint) for each in found)),
        (f"Plain samples, {k} rollouts", *(_with_interval(each.temperature) for each in found)),
        ("Difference, points", *(_difference(each.difference) for each in found)),
    )
    return Summary(
        f"At {k} rollouts per problem: {_in_words('majority', found[1])}; {_in_words('oracle', found[0])}.",
        ("", f"oracle† (pass@{k})", f"majority (maj@{k})"),
        rows,
    )


def _of_plain_pools(pools: Sequence[ParsedPool]) -> Summary:
    one, voted = pass_at_k(pools, 1), accuracy(pools, get_selector("majority"))
    best = oracle_of(pools)
    sizes = sorted({len(parsed) for parsed in pools})
    count = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    sentence = (
        f"One rollout solves {_percent(one)} of {len(pools)} problems in the mean, the majority of {count} "
        f"rollouts {_percent(voted)}; {_percent(best)} are solved by at least one of them."
    )
    rows = tuple(
        (name, _with_interval(each))
        for name, each in (("One rollout, mean", one), ("Majority", voted), ("Any rollout, oracle†", best))
    )
    return Summary(sentence, ("", f"% correct, {count} rollouts"), rows)


def _in_words(view: str, compared: BudgetComparison) -> str:
    difference = compared.difference
    if not difference.problems:
        return f"the {view} is not known ({difference.reason})"
    said = "no significant difference"
    if difference.low > 0:
        said = "the grid is better"
    elif difference.high < 0:
        said = "plain samples are better"
    return (
        f"{view} {_percent(compared.joint)} with the grid and {_percent(compared.temperature)} with plain "
        f"samples, {said} ({_difference(difference)} points, n = {difference.problems})"
    )


def _percent(estimates: Estimates) -> str:
    return f"{percent(estimates.mean)} %"


def _with_interval(estimates: Estimates) -> str:
    interval = bootstrap(estimates.values)
    if not interval.problems:
        return "–"
    return f"{percent(interval.value)} [{percent(interval.low)}, {percent(interval.high)}]"


def _difference(interval: Interval) -> str:
    if not interval.problems:
        return "–"
    value, low, high = (points(each) for each in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def _size(sizes: Sequence[float]) -> str:
    smallest, largest = min(sizes, default=0), max(sizes, default=0)
    return f"{smallest:g}" if smallest == largest else f"{smallest:g} to {largest:g}"
