"""Axes of the grid, equal budgets, intervals, tests, costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from eglr_selectors import (
    Cell,
    ParsedPool,
    PoolCost,
    Rollout,
    RolloutPool,
    Telemetry,
    get_selector,
    parse_pool,
)
from eglr_selectors.estimators import (
    accuracy,
    bootstrap,
    compare_at_budget,
    cost_of,
    decompose,
    mcnemar,
    oracle_of,
    paired_bootstrap,
    pass_at_k,
    unit_costs,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_builders import grid_pool, texts_pool

# spans 0 and 2, temperatures 0, 0.7, 0.7: cells 0-2 are span 0, cells 0 and 3 temperature 0
few = settings(max_examples=30, deadline=None)


def _solved_at(*cells: int):
    return parse_pool(grid_pool(["1" if i in cells else "2" for i in range(6)]), reference="1")


def test_problems_are_told_apart_by_the_axis_that_solves_them() -> None:
    pools = [_solved_at(0), _solved_at(1, 3), _solved_at(2), _solved_at(3, 4), _solved_at(5), _solved_at()]
    unknown = [parse_pool(grid_pool(["1"] * 6)), parse_pool(texts_pool(["1"]), "1")]
    assert decompose(pools + unknown) == {
        "both": 2,
        "temperature": 1,
        "layer": 1,
        "joint": 1,
        "none": 1,
        "unknown": 2,
    }


@given(st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=8))
@few
def test_axes_add_up_to_the_oracles(solved) -> None:
    pools = [_solved_at(*cells) for cells in solved]
    counts = decompose(pools)
    total = len(pools)
    assert sum(counts.values()) == total
    assert counts["both"] + counts["temperature"] == accuracy(pools, "temperature_oracle").values.sum()
    assert counts["both"] + counts["layer"] == accuracy(pools, "layer_oracle").values.sum()
    assert total - counts["none"] == oracle_of(pools).values.sum()
    by_span = oracle_of(pools, spans=[2], temperatures=[0.7])
    assert list(by_span.values) == [float(bool({4, 5} & cells)) for cells in solved]


def test_an_empty_sub_grid_is_undefined() -> None:
    estimate = oracle_of([_solved_at(0)], spans=[7])
    assert math.isnan(estimate.mean)
    assert "spans" in estimate.reasons[0]


def test_budgets_in_rollouts_are_matched_by_subsets() -> None:
    joint = [_solved_at(4, 5), _solved_at(0)]
    alone = [pool.subset(range(3)) for pool in joint]
    compared = compare_at_budget(joint, alone)
    assert compared.joint_rollouts == compared.temperature_rollouts == (3, 3)
    assert compared.joint.values == pytest.approx(pass_at_k(joint, 3).values)
    assert compared.temperature.values == pytest.approx([0, 1])
    assert compared.difference.value == pytest.approx((0.8 + 0.5 - 1) / 2)
    assert compared.difference.problems == 2
    votes = compare_at_budget(joint, alone, figure="maj")
    assert votes.temperature.values == pytest.approx([0, 0])


def _costing(parsed, flops: float | None):
    cost = None if flops is None else PoolCost(flops=flops)
    return parse_pool(RolloutPool(parsed.pool.rollouts, cost=cost), parsed.reference)


def test_budgets_in_flops_buy_fewer_of_the_dearer_rollouts() -> None:
    joint, alone = _solved_at(4), _solved_at(0).subset(range(3))
    compared = compare_at_budget([_costing(joint, 12.0)], [_costing(alone, 3.0)], budget="flops")
    # the cheaper side is temperature alone, whole; 3 FLOPs buy one and a half rollouts of the grid
    assert (compared.joint_rollouts, compared.temperature_rollouts) == ((1.5,), (3,))
    assert compared.joint.mean == pytest.approx((1 / 6 + 2 / 6) / 2)
    assert compared.temperature.mean == 1
    missing = compare_at_budget([_costing(joint, None)], [_costing(alone, 3.0)], budget="flops")
    assert math.isnan(missing.difference.value)
    assert missing.difference.reason
    assert "flops" in missing.joint.reasons[0]


DEPTH, LAYER, HEAD, PREFILL = 6, 70.0, 500.0, 9


def _counted(lengths: list[int], recursions: list[int], shared: int) -> ParsedPool:
    """A pool with the counts and the cost that the engine gives; its first ``shared`` tokens were one row."""
    rollouts = tuple(
        Rollout(
            rf"\boxed{{{i}}}",
            Cell(2 * (steps > 0), 0.7, i),
            "stop",
            tuple(range(length)),
            Telemetry(
                plain_layer_tokens=DEPTH * length,
                recursion_layer_tokens=2 * steps,
                head_evaluations=length + steps,
            ),
        )
        for i, (length, steps) in enumerate(zip(lengths, recursions, strict=True))
    )
    tokens, rows = sum(lengths), sum(lengths) - shared * (len(lengths) - 1)
    layers, heads = DEPTH * (PREFILL + rows) + 2 * sum(recursions), rows + sum(recursions)
    cost = PoolCost(
        prompt_tokens=PREFILL + 1,
        tokens=tokens,
        rows=rows,
        plain_layer_tokens=DEPTH * (PREFILL + rows),
        recursion_layer_tokens=2 * sum(recursions),
        head_evaluations=heads,
        flops=LAYER * layers + HEAD * heads,
        plain_flops=LAYER * DEPTH * (PREFILL + tokens) + HEAD * tokens,
    )
    return parse_pool(RolloutPool(rollouts, cost=cost), "0")


def test_unit_costs_are_those_that_the_engine_used() -> None:
    for pools in ([_counted([20, 30], [3, 0], 5)], [_counted([20, 30], [0, 0], 1), _counted([9], [4], 0)]):
        units = unit_costs(pools)
        assert units is not None
        assert units.layer_token == pytest.approx(LAYER)
        assert units.head_evaluation == pytest.approx(HEAD)
        expected = LAYER * (DEPTH * len(pools[0][0].tokens) + 2 * 3 * (pools[0][0].cell.span > 0))
        expected += HEAD * pools[0][0].telemetry.head_evaluations
        assert units.unshared(pools[0][0]) == pytest.approx(expected)
    assert unit_costs([_counted([20], [0], 0)]) is None  # both sums are the same one
    assert unit_costs([_costing(_solved_at(0), None)]) is None
    assert unit_costs([]) is None


def test_budgets_in_unshared_flops_reach_into_parts_of_pools() -> None:
    joint = _counted([10, 10, 10, 10], [0, 0, 5, 5], 4)
    plain = joint.subset([0, 1])
    compared = compare_at_budget([joint], [plain], budget="unshared_flops")
    each = DEPTH * 10 * LAYER + 10 * HEAD
    both = 4 * each + 2 * (10 * LAYER + 5 * HEAD)
    assert compared.temperature_rollouts == (2,)
    assert compared.joint_rollouts == (pytest.approx(4 * 2 * each / both),)
    assert compared.joint.mean == pytest.approx(compared.joint_rollouts[0] / 4)  # one of four is right
    shared = compare_at_budget([joint], [plain], budget="flops")
    assert math.isnan(shared.difference.value)  # work was shared: a part's cost is not known


def test_unequal_problems_and_unknown_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match="2 joint pools for 1"):
        compare_at_budget([_solved_at(0)] * 2, [_solved_at(0)])
    with pytest.raises(ValueError, match="budget='time'"):
        compare_at_budget([], [], budget="time")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="figure='best'"):
        compare_at_budget([], [], figure="best")  # type: ignore[arg-type]


def test_the_bootstrap_is_seeded_and_has_the_right_width() -> None:
    values = np.random.default_rng(0).random(400)
    interval = bootstrap(values, seed=1)
    assert interval == bootstrap(values, seed=1)
    assert interval != bootstrap(values, seed=2)
    assert interval.value == pytest.approx(values.mean())
    normal = 2 * 1.96 * values.std() / math.sqrt(len(values))
    assert interval.high - interval.low == pytest.approx(normal, rel=0.05)
    assert bootstrap(values, confidence=0.5).low > interval.low


def test_pairing_removes_what_both_share() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(300)
    first, second = hard + 0.1, hard
    interval = paired_bootstrap(first, second)
    assert interval.value == pytest.approx(0.1)
    assert interval.high - interval.low < 1e-9
    first[:100] = math.nan
    assert paired_bootstrap(first, second).problems == 200
    gone = paired_bootstrap([math.nan], [1.0])
    assert (gone.problems, math.isnan(gone.value)) == (0, True)
    assert gone.reason
    with pytest.raises(ValueError, match="same problems"):
        paired_bootstrap([1.0], [1.0, 2.0])


def test_many_problems_are_resampled_in_pieces() -> None:
    values = np.arange(5000) % 2
    assert bootstrap(values, samples=2000).value == 0.5


def test_mcnemar_is_the_sign_test_of_what_differs() -> None:
    first = [1] * 9 + [0] * 2 + [1, 0] * 20
    second = [0] * 9 + [1] * 2 + [1, 0] * 20
    tested = mcnemar(first, second)
    assert (tested.only_first, tested.only_second) == (9, 2)
    assert tested.p_value == pytest.approx(2 * sum(math.comb(11, j) for j in range(3)) / 2**11)
    assert mcnemar([1, 0], [1, 0]).p_value == 1
    assert math.isnan(mcnemar([math.nan], [1]).p_value)
    assert mcnemar([1, math.nan, 1], [0, 1, 0]).only_first == 2
    with pytest.raises(ValueError, match="0, 1 or NaN"):
        mcnemar([0.5], [1])


def test_costs_are_what_was_looked_at() -> None:
    pools = [_costing(_solved_at(0), 12.0), _costing(_solved_at(1), 6.0)]
    majority = get_selector("majority")
    whole = cost_of(pools, [majority(pool) for pool in pools])
    assert (whole.rollouts, whole.tokens, whole.flops) == (6, 21, 9)
    greedy = get_selector("greedy")
    one = cost_of(pools, [greedy(pool) for pool in pools])
    assert (one.rollouts, one.tokens) == (1, 1)
    assert math.isnan(one.flops)
    texts = parse_pool(texts_pool(["1"]))
    assert math.isnan(cost_of([texts], [majority(texts)]).tokens)
    assert math.isnan(cost_of([], []).rollouts)
    with pytest.raises(ValueError, match="shorter"):
        cost_of(pools, [])
