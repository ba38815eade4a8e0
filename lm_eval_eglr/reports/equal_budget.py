"""A grid against temperature alone at the same number of rollouts: who wins, by how much, at what cost."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eglr_selectors import ParsedPool
from eglr_selectors.estimators import (
    BudgetComparison,
    Interval,
    bootstrap,
    compare_at_budget,
    paired_bootstrap,
    pass_at_k,
)
from eglr_selectors.estimators.costs import pool_flops

from lm_eval_eglr.reports.leaderboard_table import ORACLE, flops_unit, significant, with_interval
from lm_eval_eglr.reports.selector_rows import mean
from lm_eval_eglr.reports.tables import Table, Text

FIGURES = {"maj": "majority", "pass": "any right"}
NAMES = ("grid", "temperature")


@dataclass(frozen=True, eq=False)
class EqualBudget:
    """The problems of a task with their grid, and the same ones with temperature alone.

    Attributes:
        grid: The pools of the depth × temperature grid.
        temperature: Pools of one depth (span 0, or recurrences) for the same problems, in the same order.
        names: What the two are called.

    Raises:
        ValueError: If the two are not of the same problems in the same order.
    """

    grid: Sequence[ParsedPool]
    temperature: Sequence[ParsedPool]
    names: tuple[str, str] = NAMES

    def __post_init__(self) -> None:
        mine, theirs = ([parsed.problem for parsed in each] for each in (self.grid, self.temperature))
        if mine != theirs:
            raise ValueError(f"{len(mine)} problems of a grid for {len(theirs)} others of temperature alone")

    @property
    def rollouts(self) -> float:
        """Rollouts that each side gets, the mean over problems."""
        return mean([float(min(len(a), len(b))) for a, b in zip(self.grid, self.temperature, strict=True)])

    def compared(self, figure: str, budget: str = "rollouts") -> BudgetComparison:
        """Compares the two, see :func:`eglr_selectors.estimators.compare_at_budget`.

        Args:
            figure: ``pass`` (the oracle's view) or ``maj`` (majority's).
            budget: What is equal: ``rollouts`` or ``flops``.
        """
        return self._compared[figure, budget]

    @functools.cached_property
    def _compared(self) -> dict[tuple[str, str], BudgetComparison]:
        return {
            (figure, budget): compare_at_budget(
                self.grid,
                self.temperature,
                budget=budget,
                figure=figure,  # type: ignore[arg-type]
            )
            for figure in FIGURES
            for budget in ("rollouts", "flops")
        }

    def table(self) -> Table:
        """Returns the two side by side: one rollout, majority, any right, and the cost."""
        alone = [pass_at_k(pools, 1).values for pools in (self.grid, self.temperature)]
        lines = [_line("one rollout (pass@1)", alone[0], alone[1], paired_bootstrap(*alone))]
        for figure, label in FIGURES.items():
            both = self.compared(figure)
            name = f"{label} ({figure}@{_number(self.rollouts)}){ORACLE if figure == 'pass' else ''}"
            lines.append(_line(name, both.joint.values, both.temperature.values, both.difference))
        costs = [mean([pool_flops(parsed) for parsed in each]) for each in (self.grid, self.temperature)]
        scale, unit = flops_unit(costs)
        ratio = "–" if any(map(math.isnan, costs)) else f"{costs[0] / costs[1]:.2f} ×"
        shown = [f"{unit} per problem", *(significant(cost / scale) for cost in costs), ratio]
        lines.append(tuple(map(Text, shown)))
        header = (f"{_number(self.rollouts)} rollouts each", *self.names, "difference")
        notes = [
            f"% correct [95 % interval]; {ORACLE} looks at the reference: a perfect choice's ceiling",
        ]
        if not any(map(math.isnan, costs)):
            notes.append(f"at equal FLOPs: {', '.join(self._at_equal_cost())}")
        return Table(header, tuple(lines), 1, tuple(notes))

    def _at_equal_cost(self) -> list[str]:
        return [
            f"{label} {difference_in_words(self.compared(figure, 'flops').difference)}"
            for figure, label in FIGURES.items()
        ]

    def verdict(self) -> str:
        """Says whether the depth axis adds anything at an equal number of rollouts, see :func:`verdict`."""
        any_right, majority = (self.compared(figure).difference for figure in ("pass", "maj"))
        return verdict(any_right, majority, self.rollouts, self.names)

    def record(self) -> dict[str, Any]:
        """Returns the differences with their intervals, for JSON."""
        found: dict[str, Any] = {"against": self.names[1], "rollouts": self.rollouts}
        found["verdict"] = self.verdict()
        for (figure, budget), compared in self._compared.items():
            each = compared.difference
            found[f"{figure}_at_equal_{budget}"] = {
                "value": each.value,
                "low": each.low,
                "high": each.high,
                "problems": each.problems,
            }
        return found


def verdict(any_right: Interval, majority: Interval, rollouts: float, names: tuple[str, str] = NAMES) -> str:
    """Says who wins at an equal number of rollouts: what every table and page has in words.

    One sentence, on what any rollout solves; one more where the majorities differ significantly.

    Args:
        any_right: First minus second, of problems that any rollout solves.
        majority: The same of problems that the majority solves.
        rollouts: Rollouts that each side gets, the mean over problems.
        names: Of the two.
    """
    size = _number(rollouts)
    sentences = [_sentence(any_right, names, f"pass@{size}")]
    if majority.low > 0 or majority.high < 0:
        sentences.append(_sentence(majority, names, f"maj@{size}"))
    return " ".join(sentences)


def _sentence(difference: Interval, names: tuple[str, str], figure: str) -> str:
    """Says a paired difference in one sentence.

    Args:
        difference: First minus second.
        names: Of the two.
        figure: What was compared.
    """
    if difference.problems == 0:
        return f"The difference between {names[0]} and {names[1]} is not known: {difference.reason}."
    if difference.low > 0:
        said = f"{names[0]} is better"
    elif difference.high < 0:
        said = f"{names[1]} is better"
    else:
        said = "No significant difference"
    return (
        f"{said} in {figure}: {names[0]} {points(difference.value)} points "
        f"(95 % CI {points(difference.low)} to {points(difference.high)}, n = {difference.problems})."
    )


def difference_in_words(difference: Interval) -> str:
    """A difference in points with its interval: ``−2.0 [−6.0 to +2.0]``."""
    if difference.problems == 0:
        return "–"
    return f"{points(difference.value)} [{points(difference.low)} to {points(difference.high)}]"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign; a dash if it is undefined."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:+.1f}".replace("-", "−")


def _line(label: str, grid: Any, temperature: Any, difference: Interval) -> tuple[Text, ...]:
    return tuple(map(Text, (label, _share(grid), _share(temperature), difference_in_words(difference))))


def _share(values: Any) -> str:
    interval = bootstrap(values)
    return with_interval(interval.value, interval.low, interval.high)


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"
