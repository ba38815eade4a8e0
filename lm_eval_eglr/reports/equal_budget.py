"""A grid against a pool of temperature alone of its size: axes, cost, and who wins at one budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eglr_selectors.estimators import Interval, compare_at_budget

from lm_eval_eglr.reports.leaderboard import percent
from lm_eval_eglr.reports.selector_rows import StrategyRow, strategy_row
from lm_eval_eglr.reports.tables import Table, Text
from lm_eval_eglr.store import Document

ORACLES = {
    "temperature_oracle": "temperature only, oracle",
    "layer_oracle": "layers only, oracle",
    "oracle": "joint grid, oracle",
    "majority": "joint grid, majority",
}
MATCHED = {"oracle": "temperature only at the budget, oracle", "majority": "the same, majority"}
FIGURES = {"pass": "oracle", "maj": "majority"}


@dataclass(frozen=True, slots=True)
class EqualBudget:
    """The documents of a task with their grid, and the same ones with temperature alone.

    Attributes:
        grid: With the pools of the L × T grid.
        temperature: With pools of span 0.

    Raises:
        ValueError: If the two are not the same documents of one task in the same order.
    """

    grid: Sequence[Document]
    temperature: Sequence[Document]

    def __post_init__(self) -> None:
        mine, theirs = ([(d.key.task, d.key.doc_id) for d in each] for each in (self.grid, self.temperature))
        if mine != theirs:
            raise ValueError(f"{len(mine)} documents of a grid for {len(theirs)} others of temperature alone")

    def table(self) -> Table:
        """Returns accuracy and cost of the axes, of the grid, and of the pool of its size."""
        rows = [
            (label, strategy_row("", "", documents, name))
            for documents, labels in ((self.grid, ORACLES), (self.temperature, MATCHED))
            for name, label in labels.items()
        ]
        header = ("pool and view", "rollouts", "% correct", "95 % interval", "tokens", "MFLOPs")
        notes = (
            "means per problem; an oracle looks at the reference: what a perfect selector would reach",
            "a pool's FLOPs count work that rollouts share once; of a part of a pool they are not known",
        )
        return Table(header, tuple(_cells(label, row) for label, row in rows), 1, notes)

    def difference(self, figure: str, budget: str = "rollouts") -> Interval:
        """Returns joint minus temperature with its paired bootstrap interval.

        Args:
            figure: ``pass`` (the oracle's view) or ``maj`` (majority's).
            budget: What is equal: ``rollouts`` or ``flops``.
        """
        joint, plain = ([d.parsed for d in each] for each in (self.grid, self.temperature))
        return compare_at_budget(joint, plain, budget=budget, figure=figure).difference  # type: ignore[arg-type]

    def verdict(self) -> list[str]:
        """Says in plain words whether the layer axis adds anything at an equal budget."""
        return [
            f"{view} at equal {unit}: {_in_words(self.difference(figure, budget))}"
            for figure, view in FIGURES.items()
            for budget, unit in (("rollouts", "rollouts"), ("flops", "FLOPs"))
        ]


def _in_words(difference: Interval) -> str:
    if difference.problems == 0:
        return f"not known ({difference.reason})"
    if difference.low > 0:
        said = "the layer axis adds to temperature alone"
    elif difference.high < 0:
        said = "the layer axis adds nothing, and temperature alone is better"
    else:
        said = "the layer axis adds nothing that this many problems could show"
    points = [f"{100 * value:+.1f}" for value in (difference.value, difference.low, difference.high)]
    return (
        f"{said}: joint minus temperature is {points[0]} points, 95 % interval {points[1]} to {points[2]} "
        f"({difference.problems} problems)"
    )


def _cells(label: str, row: StrategyRow) -> tuple[Text, ...]:
    known = row.flops == row.flops
    return (
        Text(label),
        Text(f"{row.rollouts:.0f}"),
        Text(percent(row.value)),
        Text(f"{percent(row.low)} to {percent(row.high)}"),
        Text(f"{row.tokens:.0f}"),
        Text(f"{row.flops / 1e6:.0f}" if known else "–"),
    )
