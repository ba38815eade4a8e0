"""Selectors, metrics and estimators on pools of recurrences, which have no level 0."""

from __future__ import annotations

import math

import pytest
from eglr_selectors import Cell, PoolCost, Rollout, RolloutPool, Telemetry, parse_pool, pool_metrics, select
from eglr_selectors.estimators import decompose, dependence, oracle_of, solved_by
from eglr_selectors.parsed import ParsedPool

LEVELS, COLUMNS = (2, 4, 8), ((0.0, 0), (0.7, 0), (0.7, 1))


def pool_of(answers: str, axis: str = "R", levels: tuple[int, ...] = LEVELS) -> ParsedPool:
    """Nine rollouts in grid order; each character is an answer."""
    cells = [Cell(level, t, i, axis=axis) for level in levels for t, i in COLUMNS]
    rollouts = [Rollout(rf"\boxed{{{answer}}}", cell) for answer, cell in zip(answers, cells, strict=True)]
    return parse_pool(RolloutPool(tuple(rollouts)), reference="7")


def test_greedy_and_the_temperature_axis_are_those_of_the_deepest_level() -> None:
    parsed = pool_of("123456789")
    assert parsed.pool.baseline_depth == 8
    assert select(parsed, "greedy").answer == "7"
    oracle = select(parsed, "temperature_oracle")
    assert (oracle.index, oracle.rollouts) == (6, 3)
    assert select(pool_of("711111111"), "temperature_oracle").index == 6, "the shallow right one is not on it"
    assert select(parsed, "layer_oracle").rollouts == 3
    spans = pool_of("123456789", "L", (0, 4, 8))
    assert spans.pool.baseline_depth == 0
    assert select(spans, "greedy").answer == "1"


def test_a_cell_is_named_by_its_level_and_if_wanted_by_its_axis() -> None:
    parsed = pool_of("123456789")
    assert select(parsed, "cell(4, 0.7, 1)").answer == "6"
    assert select(parsed, "cell(4, 0.7, 1, axis=R)").answer == "6"
    elsewhere = select(parsed, "cell(4, 0.7, 1, axis=L)")
    assert not elsewhere.defined
    assert elsewhere.reason == "the pool has no cell L4/T0.7#1"
    assert select(parsed, "cell(3, 0)").reason == "the pool has no cell R3/T0#0"
    with pytest.raises(ValueError, match="axis='X': expected one of L, R"):
        select(parsed, "cell", span=4, temperature=0, axis="X")
    assert (
        select(parsed, "oracle(spans=[5])").reason
        == "the pool has no rollout of these recurrences and temperatures"
    )


def test_parts_are_addressed_by_depth_and_named_in_words() -> None:
    parsed = pool_of("123456789")
    assert [rollout.cell.sample for rollout in parsed[4, 0.7]] == [0, 1]
    with pytest.raises(KeyError, match="recurrences 3, temperature 0: the pool has recurrences 2, 4, 8"):
        parsed.pool[3, 0]
    assert "recurrences 2, 4, 8; temperatures 0, 0.7" in repr(parsed.pool)
    html = parsed._repr_html_()
    assert "<th>R = 8</th>" in html
    assert "L = " not in html


@pytest.mark.parametrize(
    ("answers", "axis"),
    [("111111711", "both"), ("111111171", "temperature"), ("711111111", "layer"), ("171111111", "joint")],
)
def test_a_problem_is_solved_by_depth_where_only_a_shallower_greedy_rollout_solves_it(answers, axis) -> None:
    assert solved_by(pool_of(answers)) == axis


def test_the_grid_may_say_which_level_is_the_baseline_of_a_part_of_it() -> None:
    part = pool_of("117111111").subset(lambda rollout: rollout.cell.depth < 8)
    assert solved_by(part) == "joint"
    shallow = part.subset(lambda rollout: rollout.cell.depth == 2)
    assert solved_by(shallow) == "temperature"
    assert solved_by(shallow, baseline=8) == "joint"
    counts = decompose([pool_of("111111711"), shallow])
    assert (counts["temperature"], counts["joint"], counts["both"]) == (0, 1, 1)
    assert oracle_of([shallow], spans=[8]).values.tolist() == pytest.approx([math.nan], nan_ok=True)


def test_votes_by_depth_and_likeness_know_levels_and_not_spans() -> None:
    parsed = pool_of("777111112")
    assert select(parsed, "span_balanced").answer == "1"
    assert set(dependence([parsed, pool_of("177117117"), pool_of("771711711")])) <= {
        "same span",
        "same temperature column",
        "neither",
        "greedy spans",
    }


def test_no_cost_is_over_a_plain_model_that_there_is_not() -> None:
    cost = PoolCost(5, 40, 30, 60, 10, 40, 1e6, 2e6, 10.0, 5.0)
    work = Telemetry(plain_layer_tokens=10, head_evaluations=5, recursions=20)
    for axis, named in (("R", False), ("L", True)):
        rollouts = (Rollout("7", Cell(4, 0.0, axis=axis), "stop", (1,) * 40, work),)
        metrics = pool_metrics(parse_pool(RolloutPool(rollouts, cost=cost), reference="7"))
        assert ("cost_vs_shared_plain" in metrics) == named
        assert metrics["ties"] == 0
