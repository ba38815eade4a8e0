"""What a grid is worth beside a pool of temperature alone: the verdict follows the paired interval."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from eglr_selectors import Cell, ParsedPool, PoolCost, Rollout, RolloutPool, parse_pool
from eglr_selectors.estimators import Interval

from lm_eval_eglr.reports.equal_budget import EqualBudget, verdict

PROBLEMS = 40


def pools(answers: Sequence[str], spans: Sequence[int], flops: float) -> list[ParsedPool]:
    """Pools that all have these rollouts; the answer is 7."""
    rollouts = tuple(
        Rollout(
            rf"\boxed{{{answer}}}", Cell(span, 0.0 if number == 0 else 0.7, max(0, number - 1)), "stop", (1,)
        )
        for number, (answer, span) in enumerate(zip(answers, spans, strict=True))
    )
    cost = PoolCost(1, 1, 1, flops=flops, plain_flops=flops)
    return [parse_pool(RolloutPool(rollouts, f"How many, {i}?", cost), "7") for i in range(PROBLEMS)]


@pytest.mark.parametrize(
    ("grid", "plain", "said"),
    [
        ("77", "11", "grid is better in pass@2: grid +100.0 points (95 % CI +100.0 to +100.0, n = 40)."),
        ("11", "77", "temperature is better in pass@2: grid −100.0 points"),
        (
            "17",
            "17",
            "No significant difference in pass@2: grid +0.0 points (95 % CI +0.0 to +0.0, n = 40).",
        ),
    ],
)
def test_the_verdict_follows_the_interval(grid: str, plain: str, said: str) -> None:
    compared = EqualBudget(pools(grid, (0, 2), 2e6), pools(plain, (0, 0), 2e6))
    assert compared.verdict().startswith(said)
    assert compared.record()["pass_at_equal_rollouts"]["problems"] == PROBLEMS


def test_a_majority_that_differs_is_not_passed_over() -> None:
    compared = EqualBudget(pools("771", (0, 2, 2), 2e6), pools("711", (0, 0, 0), 2e6))
    assert compared.verdict() == (
        "No significant difference in pass@3: grid +0.0 points (95 % CI +0.0 to +0.0, n = 40). "
        "grid is better in maj@3: grid +100.0 points (95 % CI +100.0 to +100.0, n = 40)."
    )


def test_the_sentence_is_one_that_people_use() -> None:
    difference = Interval(-0.02, -0.06, 0.02, 200)
    same = Interval(0.0, -0.01, 0.01, 200)
    assert verdict(difference, same, 16) == (
        "No significant difference in pass@16: grid −2.0 points (95 % CI −6.0 to +2.0, n = 200)."
    )
    unknown = Interval(float("nan"), float("nan"), float("nan"), 0, "no problem is defined")
    assert "is not known: no problem is defined" in verdict(unknown, same, 16)


def test_the_table_has_both_at_one_size_and_their_cost() -> None:
    table = EqualBudget(pools("17", (0, 2), 3e6), pools("111", (0, 0, 0), 2e6)).table()
    cells = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert table.header == ("2 rollouts each", "grid", "temperature", "difference")
    assert cells["one rollout (pass@1)"] == ["50.0 [50–50]", "0.0 [0–0]", "+50.0 [+50.0 to +50.0]"]
    assert cells["any right (pass@2)†"][0] == "100.0 [100–100]"
    assert cells["MFLOPs per problem"] == ["3.00", "2.00", "1.50 ×"]


def test_other_problems_are_refused() -> None:
    grid = pools("17", (0, 2), 1e6)
    with pytest.raises(ValueError, match="40 problems of a grid for 39 others"):
        EqualBudget(grid, grid[1:])
