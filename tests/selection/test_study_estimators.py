"""Power, corrections, halves, dependence, worth in samples, first changes: laws and hand-made cases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from eglr_selectors import Cell, ParsedPool, Rollout, RolloutPool, parse_pools
from eglr_selectors.estimators import (
    choose_on_half,
    dependence,
    detectable_difference,
    first_changes,
    holm,
    mcnemar,
    problems_needed,
    success_matrix,
    worth_in_samples,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_builders import grid_pool

few = settings(max_examples=60, deadline=None)


def pools_of(right: np.ndarray, spans: Sequence[int], temperatures: Sequence[float]) -> list[ParsedPool]:
    """Pools of a grid that are right where the matrix ``[problems, cells]`` says so."""
    pools = [grid_pool(["7" if one else "1" for one in row], spans, temperatures) for row in right]
    return parse_pools(pools, ["7"] * len(pools))


@given(st.floats(0.005, 0.4), st.floats(0.0, 1.0), st.floats(0.5, 0.95))
@few
def test_what_so_many_problems_show_is_what_they_were_needed_for(
    difference: float, more: float, power: float
) -> None:
    discordant = difference + more * (1 - difference)
    count = problems_needed(difference, discordant, power=power)
    assert detectable_difference(count, discordant, power=power) <= difference * (1 + 1e-9)
    if count > 1:
        above = detectable_difference(count - 1, discordant, power=power)
        assert math.isnan(above) or above > difference


def test_the_power_is_what_a_simulation_finds() -> None:
    """Normal approximation against the exact test, which is a little more careful."""
    rng = np.random.default_rng(0)
    difference, discordant = 0.1, 0.3
    count = problems_needed(difference, discordant)
    won, lost = (discordant + difference) / 2, (discordant - difference) / 2
    outcomes = rng.multinomial(count, [won, lost, 1 - won - lost], size=400)
    seen = 0
    for a, b, _ in outcomes:
        first = np.repeat([1.0, 0.0], [a, b])
        seen += mcnemar(first, 1 - first).p_value < 0.05
    assert 0.7 < seen / len(outcomes) < 0.86


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"difference": 0, "discordant": 0.1}, "difference"),
        ({"difference": 0.2, "discordant": 0.1}, "difference"),
        ({"difference": 0.1, "discordant": 1.5}, "discordant"),
        ({"difference": 0.1, "discordant": 0.2, "power": 0}, "power"),
    ],
)
def test_a_share_out_of_range_is_named(options: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        problems_needed(**options)


def test_a_difference_that_cannot_be_seen_is_undefined() -> None:
    assert math.isnan(detectable_difference(5, 0.05))


def test_holm_follows_the_paper() -> None:
    assert holm([0.01, 0.04, 0.03, math.nan])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
@few
def test_holm_rejects_what_stepping_down_rejects(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[i] * (len(p_values) - rank) > level:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(corrected) if p <= level} == rejected


def test_the_half_that_reports_has_no_say_in_the_choice() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 40).astype(float)
    candidates = {name: rng.integers(0, 2, 40).astype(float) for name in "abcde"}
    found = choose_on_half(candidates, base)
    for each in candidates.values():
        each[1::2] = rng.integers(0, 2, 20)
    again = choose_on_half(candidates, base)
    assert (again.name, again.chosen) == (found.name, found.chosen)
    best = candidates[again.name]
    assert again.reported.value == pytest.approx(float(np.mean(best[1::2] - base[1::2])))
    assert again.candidates == 5


def test_no_candidate_is_refused() -> None:
    with pytest.raises(ValueError, match="candidates"):
        choose_on_half({}, [1.0, 0.0])
    with pytest.raises(ValueError, match=r"candidates\['a'\]"):
        choose_on_half({"a": [1.0]}, [1.0, 0.0])


def test_spans_that_repeat_each_other_correlate_fully_and_samples_do_not() -> None:
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 2, (400, 3))  # T = 0, 0.7, 0.7: independent of each other
    found = dependence(pools_of(np.hstack([columns, columns]), (0, 2), (0.0, 0.7, 0.7)), samples=50)
    assert found["same temperature column"].correlation.value == pytest.approx(1)
    assert found["greedy spans"].correlation.value == pytest.approx(1)
    assert found["same temperature column"].pairs == 2
    for kind in ("same span", "neither"):
        interval = found[kind].correlation
        assert abs(interval.value) < 0.15
        assert interval.low <= interval.value <= interval.high


def test_cells_that_differ_are_refused() -> None:
    pools = pools_of(np.ones((1, 4)), (0, 2), (0.0, 0.7)) + pools_of(np.ones((1, 4)), (0, 4), (0.0, 0.7))
    with pytest.raises(ValueError, match=r"pools\[1\]"):
        success_matrix(pools)


@given(st.integers(1, 8))
@few
def test_plain_samples_are_worth_what_they_are(size: int) -> None:
    """The whole pool is worth its size, and every estimate is within its interval."""
    rng = np.random.default_rng(size)
    right = rng.random((60, 8)) < rng.random((60, 1))
    right[0] = [True] + [False] * 7  # the last sample still adds something
    plain = pools_of(right, (0,), (0.7,) * 8)
    worth = worth_in_samples([parsed.subset(range(8)) for parsed in plain], plain, samples=20)
    assert worth.value == pytest.approx(8)
    alone = worth_in_samples([parsed.subset(range(size)) for parsed in plain], plain, samples=200)
    assert alone.low <= alone.value <= alone.high


def test_what_solves_nothing_is_worth_nothing_and_what_solves_more_has_no_price() -> None:
    right = np.zeros((10, 4), dtype=bool)
    right[:5, 0] = True
    plain = pools_of(right, (0,), (0.7,) * 4)
    never, always = (pools_of(np.full((10, 1), one), (0,), (0.0,)) for one in (False, True))
    assert worth_in_samples(never, plain, samples=10).value == 0
    assert math.isinf(worth_in_samples(always, plain, samples=10).value)


def test_a_first_change_is_where_the_texts_part() -> None:
    def pool(tokens: Sequence[int], answer: str) -> RolloutPool:
        return RolloutPool((Rollout(rf"\boxed{{{answer}}}", Cell(), "stop", tuple(tokens)),))

    before = parse_pools([pool([1, 2, 3, 4], "7"), pool([1, 2], "1"), pool([5], "7")], ["7"] * 3)
    after = parse_pools([pool([1, 2, 9, 4], "1"), pool([1, 2, 3], "1"), pool([5], "7")], ["7"] * 3)
    first, longer, equal = first_changes(before, after)
    assert first is not None
    assert (first.token, first.share, first.plain, first.other) == (2, 0.5, 3, 9)
    assert (first.before, first.after, first.same_answer) == (True, False, False)
    assert longer is not None
    assert (longer.token, longer.plain, longer.other, longer.same_answer) == (2, None, 3, True)
    assert equal is None
