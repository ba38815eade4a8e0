"""The first lines of a page: what each axis solves alone, both together, and at the same budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from eglr_selectors import ParsedPool
from eglr_selectors.estimators import bootstrap, compare_at_budget, oracle_of

from lm_eval_eglr.reports.leaderboard import percent


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


def headline(pools: Sequence[ParsedPool]) -> list[Figure]:
    """Returns the oracles of the axes and of the grid, and the grid against temperature at equal rollouts."""
    figures = [
        _oracle("Temperature only, oracle", pools, spans=[0], temperatures=None),
        _oracle("Layers only, oracle", pools, spans=None, temperatures=[0.0]),
        _oracle("Joint grid, oracle", pools, spans=None, temperatures=None),
    ]
    plain = [parsed.subset(lambda rollout: rollout.cell.span == 0) for parsed in pools]
    for figure, name in (("pass", "pass@k"), ("maj", "maj@k")):
        compared = compare_at_budget(pools, plain, budget="rollouts", figure=figure)  # type: ignore[arg-type]
        difference, sizes = compared.difference, sorted(set(compared.joint_rollouts))
        k = "–".join(str(size) for size in {sizes[0]: 0, sizes[-1]: 0})
        figures.append(
            Figure(
                f"Joint minus temperature, {name}, k = {k}",
                "–" if math.isnan(difference.value) else f"{100 * difference.value:+.1f} points",
                f"same number of rollouts; 95 %: {_points(difference.low)} to {_points(difference.high)}",
            )
        )
    return figures


def _oracle(
    name: str, pools: Sequence[ParsedPool], spans: list[int] | None, temperatures: list[float] | None
) -> Figure:
    interval = bootstrap(oracle_of(pools, spans, temperatures).values)
    sizes = {
        sum(
            (spans is None or rollout.cell.span in spans)
            and (temperatures is None or rollout.cell.temperature in temperatures)
            for rollout in parsed
        )
        for parsed in pools
    }
    rollouts = f"{min(sizes)}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
    return Figure(
        name,
        f"{percent(interval.value)} %",
        f"{rollouts} rollouts; 95 %: {percent(interval.low)} to {percent(interval.high)}",
    )


def _points(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:+.1f}"
