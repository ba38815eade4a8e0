"""What a page says first: one sentence and a small table, the grid and plain sampling at as many rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eglr_selectors import ParsedPool, get_selector
from eglr_selectors.estimators import (
    Estimates,
    accuracy,
    bootstrap,
    oracle_of,
    pass_at_k,
)

from lm_eval_eglr.reports.baseline_runs import is_grid
from lm_eval_eglr.reports.equal_budget import difference_in_words, verdict
from lm_eval_eglr.reports.headline import Comparisons
from lm_eval_eglr.reports.leaderboard import percent
from lm_eval_eglr.reports.selector_rows import mean


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
    any_right, majority = (each.difference for each in found)
    rows = (
        (f"Grid, {k} rollouts", *(_with_interval(each.joint) for each in found)),
        (f"Plain samples, {k} rollouts", *(_with_interval(each.temperature) for each in found)),
        ("Difference, points", difference_in_words(any_right), difference_in_words(majority)),
    )
    return Summary(
        verdict(any_right, majority, mean(found[0].joint_rollouts)),
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


def _percent(estimates: Estimates) -> str:
    return f"{percent(estimates.mean)} %"


def _with_interval(estimates: Estimates) -> str:
    interval = bootstrap(estimates.values)
    if not interval.problems:
        return "–"
    return f"{percent(interval.value)} [{percent(interval.low)}, {percent(interval.high)}]"


def _size(sizes: Sequence[float]) -> str:
    smallest, largest = min(sizes, default=0), max(sizes, default=0)
    return f"{smallest:g}" if smallest == largest else f"{smallest:g} to {largest:g}"
