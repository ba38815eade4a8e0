"""What a vote says of itself where weights are odd or missing, and where only a part was looked at."""

from __future__ import annotations

import math

import pytest
from eglr_selectors import RolloutPool, choose, parse_pool, select, vote
from pool_builders import grid_pool, texts_pool

NAN, INF = math.nan, math.inf


def _two_classes():
    return parse_pool(texts_pool(["1", "2", None]))


@pytest.mark.parametrize(
    ("weights", "winner", "confidence"),
    [
        ((3.0, 1.0), 0, 0.75),
        ((0.0, 2.0), 1, 1.0),
        ((2.0, 0.0), 0, 1.0),
        ((0.0, 0.0), 0, NAN),
        ((INF, 1.0), 0, NAN),
        ((INF, INF), 0, NAN),
        ((-1.0, 3.0), 1, NAN),
        ((-1.0, -3.0), 0, NAN),
        ((-INF, INF), 1, NAN),
    ],
)
def test_a_share_needs_weights_that_can_be_shared_out(weights, winner: int, confidence: float) -> None:
    chosen = vote(_two_classes(), enumerate(weights))
    assert (chosen.index, chosen.answer, chosen.defined) == (winner, "12"[winner], True)
    assert chosen.weights == {0: weights[0], 1: weights[1]}
    assert chosen.confidence == pytest.approx(confidence, nan_ok=True)


def test_the_largest_vote_of_a_class_may_be_any_number() -> None:
    scored = texts_pool(["1", "2", "2"], scores=[INF, -INF, -INF])
    chosen = select(scored, "weighted_vote(aggregate=max)")
    assert (chosen.answer, dict(chosen.weights)) == ("1", {0: INF, 1: -INF})
    assert math.isnan(chosen.confidence)


def test_only_rollouts_with_an_answer_and_a_weight_vote() -> None:
    chosen = vote(_two_classes(), [(0, NAN), (1, 1.0), (2, 9.0)])
    assert (chosen.answer, dict(chosen.weights), dict(chosen.answers)) == ("2", {1: 1.0}, {1: "2"})


@pytest.mark.parametrize("answers", [["1", None], ["1", "1"], ["1", "2"]])
def test_answers_without_a_weight_are_no_failure_of_the_rollouts(answers: list[str | None]) -> None:
    parsed = parse_pool(texts_pool(answers))
    for votes in ((), [(0, NAN), (1, NAN)]):
        chosen = vote(parsed, votes)
        assert (chosen.answer, chosen.index, chosen.defined) == (None, None, False)
        assert chosen.reason == "no rollout with an answer has a weight"
        assert chosen.rollouts == 2
    assert vote(parsed, [(0, NAN)], consumed=[0]).rollouts == 1


def test_a_selector_whose_answers_know_no_entropy_says_so() -> None:
    pool = grid_pool(["1", None, None, None, None, None], mean_entropy=[NAN, 1.0, 1.0, 1.0, 1.0, 1.0])
    chosen = select(pool, "entropy_weighted")
    assert (chosen.defined, chosen.reason) == (False, "no rollout with an answer has a weight")
    assert (chosen.rollouts, chosen.tokens) == (6, 21)


def test_rollouts_without_an_answer_are_a_failure() -> None:
    parsed = parse_pool(grid_pool([None, None, None, None, None, "1"]))
    chosen = vote(parsed, (), consumed=[0, 1, 2])
    assert (chosen.answer, chosen.index, chosen.defined) == (None, None, True)
    assert chosen.reason == "no rollout has an answer"
    assert (chosen.rollouts, chosen.tokens) == (3, 6)
    whole = select(grid_pool([None] * 6), "majority")
    assert (whole.reason, whole.defined, whole.rollouts, whole.tokens) == (chosen.reason, True, 6, 21)


def test_where_nothing_was_looked_at_it_is_undefined_and_costs_nothing() -> None:
    empty = select(RolloutPool(()), "majority")
    assert empty.reason == "the pool is empty"
    for chosen in (empty, vote(_two_classes(), (), consumed=[])):
        assert chosen.defined is False
        assert (chosen.rollouts, chosen.tokens) == (0, 0)


def test_what_was_looked_at_is_what_is_counted() -> None:
    parsed = parse_pool(grid_pool(["1", "2", "2", "3", "3", None]))
    voted = vote(parsed, [(1, 1.0), (2, 1.0)], consumed=[0, 1, 2])
    assert (voted.answer, voted.rollouts, voted.tokens) == ("2", 3, 6)
    chosen = choose(parsed, 4, consumed=[3, 4])
    assert (chosen.answer, chosen.rollouts, chosen.tokens) == ("3", 2, 9)
    assert (choose(parsed, 4).rollouts, choose(parsed, 4).tokens) == (6, 21)
