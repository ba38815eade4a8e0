"""Axes of the grid, equal budgets, costs."""

from __future__ import annotations

import math
from dataclasses import replace

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
    pool_metrics,
)
from eglr_selectors.estimators import (
    UnitCosts,
    accuracy,
    compare_at_budget,
    cost_of,
    decompose,
    maj_at_k,
    oracle_of,
    paired_bootstrap,
    pass_at_k,
    solved_by,
    unit_costs,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_builders import grid_pool, texts_pool, ungraded

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


def test_where_a_grade_is_not_known_no_axis_is_said_to_have_failed() -> None:
    assert solved_by(ungraded(_solved_at(), {1})) == "unknown"
    assert solved_by(ungraded(_solved_at(), set(range(6)))) == "unknown"
    assert solved_by(ungraded(_solved_at(2), {1})) == "temperature"


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
    assert missing.joint_rollouts == missing.temperature_rollouts == (0,)
    assert "flops" in missing.temperature.reasons[0]
    uncounted = compare_at_budget([joint], [alone], budget="unshared_flops")
    assert "unshared_flops" in uncounted.joint.reasons[0]


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e15])
def test_the_cheaper_side_is_whole_whichever_it_is(unit: float) -> None:
    joint, alone = _costing(_solved_at(4), 3 * unit), _costing(_solved_at(0).subset(range(3)), 4 * unit)
    compared = compare_at_budget([joint], [alone], budget="flops")
    assert (compared.joint_rollouts, compared.temperature_rollouts) == ((6,), (pytest.approx(2.25),))
    assert compared.joint.mean == 1
    assert compared.temperature.mean == pytest.approx(0.75 * 2 / 3 + 0.25)
    assert (compared.joint.standard_error, compared.temperature.standard_error) == (0, 0)
    even = compare_at_budget([joint], [joint.subset(range(6))], budget="flops")
    assert even.joint_rollouts == (0,)  # a part's cost is not known
    same = compare_at_budget([joint], [joint], budget="flops")
    assert same.joint_rollouts == same.temperature_rollouts == (6,)


def test_a_budget_may_buy_one_rollout_but_no_less() -> None:
    joint = _solved_at(4)
    alone = _costing(_solved_at(0).subset([0]), 1.0)
    one = compare_at_budget([_costing(joint, 6.0)], [alone], budget="flops")
    assert (one.joint_rollouts, one.joint.mean) == ((1,), pytest.approx(1 / 6))
    half = compare_at_budget([_costing(joint, 12.0)], [alone], budget="flops")
    assert (half.joint_rollouts, half.temperature_rollouts) == ((0.5,), (1,))
    assert "buys no rollout" in half.joint.reasons[0]
    assert (half.temperature.mean, half.difference.problems) == (1, 0)


def test_a_problem_without_a_budget_does_not_end_the_others() -> None:
    joint = [_costing(_solved_at(4), flops) for flops in (6.0, None, 6.0)]
    alone = [_costing(_solved_at(0).subset(range(3)), 3.0)] * 3
    compared = compare_at_budget(joint, alone, budget="flops")
    for side, value in ((compared.joint, 0.5), (compared.temperature, 1)):
        assert side.values == pytest.approx([value, math.nan, value], nan_ok=True)
        assert [bool(reason) for reason in side.reasons] == [False, True, False]
    assert (compared.difference.problems, compared.difference.value) == (2, pytest.approx(-0.5))


def test_a_size_between_two_is_undefined_where_the_larger_is() -> None:
    joint = ungraded(_costing(_solved_at(4), 6.0), {0, 1, 2, 3})
    compared = compare_at_budget([joint], [_costing(_solved_at(0).subset(range(3)), 2.5)], budget="flops")
    assert compared.joint_rollouts == (pytest.approx(2.5),)
    assert math.isnan(compared.joint.mean)
    assert compared.joint.reasons == ("k=3: 2 of 6 rollouts are graded",)


def test_errors_of_sizes_between_two_are_those_of_both() -> None:
    joint = parse_pool(texts_pool(["1", "2", "1"] * 167), "1")  # too many to be counted: drawn
    alone = parse_pool(texts_pool(["1", "2", "1"]), "1")
    compared = compare_at_budget(
        [_costing(joint, 501.0)], [_costing(alone, 2.25)], budget="flops", figure="maj"
    )
    low, high = (maj_at_k([joint], size) for size in (2, 3))
    assert compared.joint_rollouts == (pytest.approx(2.25),)
    assert compared.joint.mean == pytest.approx(0.75 * low.mean + 0.25 * high.mean)
    expected = math.hypot(0.75 * low.standard_error, 0.25 * high.standard_error)
    assert compared.joint.standard_error == pytest.approx(expected)
    assert compared.temperature.standard_error == 0


def test_a_comparison_repeats_and_its_seed_is_that_of_the_bootstrap() -> None:
    joint = [_solved_at(*cells) for cells in ([], [0], [1, 4], [3], [3, 4], [5], [0, 1, 2], [2, 5], [4])]
    alone = [pool.subset(range(3)) for pool in joint]
    default = compare_at_budget(joint, alone)
    assert default.difference == compare_at_budget(joint, alone, seed=0).difference
    for seed in (0, 3):
        compared = compare_at_budget(joint, alone, seed=seed)
        expected = paired_bootstrap(compared.joint.values, compared.temperature.values, seed=seed)
        assert compared.difference == expected
    assert compared.difference != default.difference


DEPTH, LAYER, HEAD, PREFILL = 6, 70e6, 500e6, 9


def _counted(
    lengths: list[int],
    recursions: list[int],
    shared: int,
    *,
    prefill: int = PREFILL,
    layer: float = LAYER,
    head: float = HEAD,
) -> ParsedPool:
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
    layers, heads = DEPTH * (prefill + rows) + 2 * sum(recursions), rows + sum(recursions)
    cost = PoolCost(
        prompt_tokens=prefill + 1,
        tokens=tokens,
        rows=rows,
        plain_layer_tokens=DEPTH * (prefill + rows),
        recursion_layer_tokens=2 * sum(recursions),
        head_evaluations=heads,
        flops=layer * layers + head * heads,
        plain_flops=layer * DEPTH * (prefill + tokens) + head * tokens,
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


def _changed(parsed: ParsedPool, **changes: float) -> ParsedPool:
    """The pool with another cost."""
    assert parsed.pool.cost is not None
    return parse_pool(replace(parsed.pool, cost=replace(parsed.pool.cost, **changes)), "0")


def test_pools_whose_counts_do_not_fit_are_passed_over() -> None:
    good = _counted([20, 30], [3, 0], 5)
    units = unit_costs([good])
    wrong = _changed(good, flops=1e9)
    uncounted = (replace(wrong[0], telemetry=None), wrong[1])
    bad = [
        _costing(good, None),
        _changed(good, flops=0.0, plain_flops=1e9),
        _changed(wrong, tokens=51),
        parse_pool(replace(wrong.pool, rollouts=uncounted)),
        parse_pool(RolloutPool(texts_pool(["1"]).rollouts, cost=PoolCost(flops=1e9))),
    ]
    assert unit_costs([wrong]) != units
    for pool in bad:
        assert unit_costs([pool]) is None
        assert unit_costs([pool, good]) == unit_costs([good, pool]) == units


@pytest.mark.parametrize(
    "pools",
    [
        # neither of which says anything by itself where the other half of it is left out
        [_counted([9], [4], 0), _counted([9], [0], 0)],
        [_counted([10, 10], [0, 0], 10), _counted([10], [0], 0)],
        [_counted([20, 30], [3, 0], 5, prefill=0)],
        [_counted([20, 30], [3, 0], 5), _counted([7], [2], 0, prefill=0), _counted([8, 8], [0, 0], 2)],
    ],
)
def test_unit_costs_are_those_of_all_pools(pools: list[ParsedPool]) -> None:
    units = unit_costs(pools)
    assert units is not None
    assert (units.layer_token, units.head_evaluation) == (pytest.approx(LAYER), pytest.approx(HEAD))


def test_unit_costs_are_none_where_the_counts_imply_none_or_nonsense() -> None:
    # 200 layer tokens for 25 heads, and 216 for 27: the same proportion
    assert unit_costs([_counted([13, 14], [1, 0], 3)]) is None
    assert unit_costs([_counted([20, 30], [3, 0], 5, head=-HEAD / 100)]) is None
    assert unit_costs([_counted([20, 30], [3, 0], 5, layer=-LAYER / 100)]) is None
    small = unit_costs([_counted([20, 30], [3, 0], 5, layer=0.25, head=0.5)])
    assert small is not None
    assert (small.layer_token, small.head_evaluation) == (pytest.approx(0.25), pytest.approx(0.5))


def test_work_that_was_not_counted_has_no_cost() -> None:
    units = UnitCosts(2.0, 3.0)
    assert math.isnan(units.unshared(Rollout("1")))
    assert math.isnan(units.unshared(Rollout("1", telemetry=Telemetry())))
    assert units.unshared(Rollout("1", telemetry=Telemetry(plain_layer_tokens=5, head_evaluations=1))) == 13
    majority = get_selector("majority")
    for flops, known in ((0.0, math.nan), (0.5, 0.5), (1.0, 1.0)):
        pool = _costing(_solved_at(0), flops)
        assert cost_of([pool], [majority(pool)]).flops == pytest.approx(known, nan_ok=True)


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


def test_a_cost_is_compared_with_plain_samples_that_share_as_much() -> None:
    plain = _counted([20, 30], [0, 0], 15)  # prefixes are shared, nothing is recursed
    assert pool_metrics(plain)["cost_vs_shared_plain"] == 1
    recursed = _counted([20, 30], [3, 0], 15)
    work = DEPTH * (PREFILL + 35) * LAYER + 35 * HEAD
    extra = 2 * 3 * LAYER + 3 * HEAD
    assert pool_metrics(recursed)["cost_vs_shared_plain"] == pytest.approx(1 + extra / work)
    with pytest.warns(DeprecationWarning, match="cost_vs_shared_plain"):
        former = pool_metrics(recursed)["cost_vs_plain"]
    assert former == pytest.approx((work + extra) / (DEPTH * (PREFILL + 50) * LAYER + 50 * HEAD))
    uncounted = pool_metrics(_solved_at(0))
    assert "cost_vs_shared_plain" not in uncounted
    with pytest.raises(KeyError):
        uncounted["cost_vs_plain"]
