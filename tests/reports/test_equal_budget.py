"""What a grid is worth beside a pool of temperature alone: the verdict follows the paired interval."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from eglr_selectors import Cell, PoolCost, Rollout, RolloutPool, parse_pool

from lm_eval_eglr.reports.equal_budget import EqualBudget
from lm_eval_eglr.store import Document, PoolKey

PROBLEMS = 40


def documents(answers: Sequence[str], spans: Sequence[int], flops: float) -> list[Document]:
    """Documents that all have these rollouts; the answer is 7."""
    rollouts = tuple(
        Rollout(
            rf"\boxed{{{answer}}}", Cell(span, 0.0 if number == 0 else 0.7, max(0, number - 1)), "stop", (1,)
        )
        for number, (answer, span) in enumerate(zip(answers, spans, strict=True))
    )
    cost = PoolCost(1, 1, 1, flops=flops, plain_flops=flops)
    pool = RolloutPool(rollouts, "How many?", cost)
    return [
        Document(PoolKey("toy", number, reference="7"), parse_pool(pool, reference="7"))
        for number in range(PROBLEMS)
    ]


@pytest.mark.parametrize(
    ("grid", "plain", "said"),
    [
        ("77", "11", "the layer axis adds to temperature alone: joint minus temperature is +100.0 points"),
        ("11", "77", "the layer axis adds nothing, and temperature alone is better: joint"),
        ("17", "17", "the layer axis adds nothing that this many problems could show: joint"),
    ],
)
def test_the_verdict_follows_the_interval(grid: str, plain: str, said: str) -> None:
    compared = EqualBudget(documents(grid, (0, 2), 2e6), documents(plain, (0, 0), 2e6))
    lines = compared.verdict()
    assert [line.partition(":")[0] for line in lines] == [
        f"{view} at equal {budget}" for view in ("oracle", "majority") for budget in ("rollouts", "FLOPs")
    ]
    assert f": {said}" in lines[0]
    assert f"({PROBLEMS} problems)" in lines[0]


def test_the_table_has_axes_budget_and_cost() -> None:
    table = EqualBudget(documents("17", (0, 2), 3e6), documents("11", (0, 0), 2e6)).table()
    cells = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert [values[0] for values in cells.values()] == ["1", "1", "2", "2", "2", "2"]
    assert cells["joint grid, oracle"] == ["2", "100.0", "100.0 to 100.0", "2", "3"]
    assert cells["temperature only at the budget, oracle"] == ["2", "0.0", "0.0 to 0.0", "2", "2"]
    assert cells["temperature only, oracle"][-1] == "–"  # shared work makes a part's cost unknown


def test_other_problems_are_refused() -> None:
    grid = documents("17", (0, 2), 1e6)
    with pytest.raises(ValueError, match="40 documents of a grid for 39 others"):
        EqualBudget(grid, grid[1:])
