"""Fixed cells, plain and confidence votes, best-of-n, oracles: choices, ties, gaps, empty pools."""

from __future__ import annotations

import math

import pytest
from eglr_selectors import RolloutPool, available_selectors, parse_pool, select
from pool_builders import grid_pool, texts_pool

# spans 0 and 2, each at temperatures 0, 0.7, 0.7
ANSWERS = ["1", "2", "2", "3", "3", None]


def test_cells_give_their_own_rollout() -> None:
    pool = grid_pool(ANSWERS)
    assert select(pool, "first").index == select(pool, "greedy").index == 0
    chosen = select(pool, "cell(2, 0.7, 0)")
    assert (chosen.answer, chosen.index, chosen.rollouts, chosen.tokens) == ("3", 4, 1, 5)
    assert select(pool, "cell", span=0, temperature=0.7, sample=1).index == 2
    unread = select(pool, "cell(2, 0.7, 1)")
    assert (unread.answer, unread.index) == (None, 5)
    assert "no answer" in unread.reason
    absent = select(pool, "cell(9, 0)")
    assert (absent.answer, absent.index, absent.rollouts) == (None, None, 0)
    assert "L9/T0#0" in absent.reason


def test_greedy_is_undefined_where_the_temperature_is_not_known() -> None:
    assert select(texts_pool(["1"]), "greedy").index is None
    assert select(texts_pool(["1"]), "first").answer == "1"


def test_majority_counts_answers_and_ties_go_to_the_first() -> None:
    chosen = select(grid_pool(ANSWERS))
    assert (chosen.answer, chosen.index) == ("2", 1)
    assert dict(chosen.weights) == {0: 1.0, 1: 2.0, 2: 2.0}
    assert dict(chosen.answers) == {0: "1", 1: "2", 2: "3"}
    assert chosen.confidence == pytest.approx(2 / 5)
    assert (chosen.rollouts, chosen.tokens) == (6, 21)


def test_span_balanced_gives_each_span_one_vote() -> None:
    pool = grid_pool(["1", "1", "1", "2", None, None])
    assert select(pool, "majority").answer == "1"
    assert select(pool, "span_balanced").weights == {0: 1.0, 1: 1.0}
    thirds_and_sevenths = grid_pool(["1"] * 7 + ["2"] * 3 + [None] * 4, temperatures=(0.7,) * 7)
    assert select(thirds_and_sevenths, "span_balanced").weights == {0: 1.0, 1: 1.0}
    lone = grid_pool(["1", "2", "2", "1", None, None])
    assert select(lone, "span_balanced").answer == "1"


def test_confidence_votes_follow_their_formula() -> None:
    entropies = [0.1, 2.0, 2.5, 1.0, 1.5, 0.0]
    chosen = select(grid_pool(ANSWERS, mean_entropy=entropies), "entropy_weighted(beta=2)")
    by_hand = {
        0: math.exp(-0.2),
        1: math.exp(-4) + math.exp(-5),
        2: math.exp(-2) + math.exp(-3),
    }
    assert chosen.answer == "1"
    assert chosen.confidence == pytest.approx(by_hand[0] / sum(by_hand.values()))
    for number, weight in by_hand.items():
        assert chosen.weights[number] / chosen.weights[0] == pytest.approx(weight / by_hand[0])
    logprobs = [-entropy for entropy in entropies]
    likely = select(grid_pool(ANSWERS, mean_logprob=logprobs), "logprob_weighted", beta=2)
    assert likely.weights == chosen.weights


def test_beta_zero_is_majority_even_without_telemetry() -> None:
    pool = texts_pool(ANSWERS)
    assert select(pool, "entropy_weighted", beta=0) == select(pool, "majority")


def test_a_very_large_beta_still_tells_rollouts_apart() -> None:
    pool = grid_pool(ANSWERS, mean_entropy=[5.0, 4.0, 4.0, 6.0, 6.0, 1.0])
    assert select(pool, "entropy_weighted", beta=1e4).answer == "2"


@pytest.mark.parametrize("name", ["entropy_weighted", "logprob_weighted", "best_of_n"])
def test_missing_telemetry_is_undefined_and_says_so(name: str) -> None:
    chosen = select(texts_pool(ANSWERS), name)
    assert (chosen.answer, chosen.index) == (None, None)
    assert chosen.reason


def test_a_rollout_without_telemetry_abstains() -> None:
    pool = grid_pool(["1", "1", "2", None, None, None], mean_entropy=[math.nan, math.nan, 3.0, 0, 0, 0])
    chosen = select(pool, "entropy_weighted")
    assert (chosen.answer, dict(chosen.weights)) == ("2", {1: 1.0})


def test_best_of_n_takes_scores_before_log_probabilities() -> None:
    scored = texts_pool(["1", "2", "3", None], scores=[0.1, 0.7, 0.7, 0.9])
    assert (select(scored, "best_of_n").answer, select(scored, "best_of_n").index) == ("2", 1)
    likely = grid_pool(ANSWERS, mean_logprob=[-3, -2, -1, -0.5, -4, -0.1])
    assert select(likely, "best_of_n").index == 3


def test_best_of_n_gives_a_text_where_nothing_has_an_answer() -> None:
    chosen = select(texts_pool([None, None], scores=[0.1, 0.7]), "best_of_n")
    assert (chosen.answer, chosen.index) == (None, 1)
    assert chosen.reason


def test_oracles_find_the_reference_on_their_axis() -> None:
    pool = grid_pool(ANSWERS)
    found = select(pool, "oracle", reference="3")
    assert (found.answer, found.index, found.rollouts, found.uses_reference) == ("3", 3, 6, True)
    assert select(pool, "layer_oracle", reference="3").index == 3
    assert select(pool, "temperature_oracle", reference="3").answer == "1"
    assert select(pool, "temperature_oracle", reference="2").index == 1
    assert select(pool, "oracle(spans=[2], temperatures=[0.7])", reference="3").index == 4
    assert select(pool, "oracle", reference="8").index == 0
    assert select(pool, "oracle", spans=[4], reference="3").index is None


def test_oracles_without_a_reference_are_undefined() -> None:
    chosen = select(grid_pool(ANSWERS), "oracle")
    assert (chosen.answer, chosen.uses_reference) == (None, True)
    assert "reference" in chosen.reason


def test_only_oracles_see_the_reference() -> None:
    seen = []
    parsed = parse_pool(grid_pool(ANSWERS), "2")
    select(parsed, lambda pool: seen.append((pool.reference, set(pool.correct))))
    assert seen == [(None, {None})]
    assert parsed.correct == (False, True, True, False, False, False)


@pytest.mark.parametrize("name", sorted(set(available_selectors()) - {"cell"}))
@pytest.mark.parametrize(
    ("pool", "word"), [(RolloutPool(()), "empty"), (texts_pool([None, None]), "")], ids=["empty", "unread"]
)
def test_no_selector_invents_an_answer(name: str, pool: RolloutPool, word: str) -> None:
    chosen = select(pool, name, reference="1")
    assert chosen.answer is None
    assert word in chosen.reason
    assert chosen.reason
    assert math.isnan(chosen.confidence)
    assert not chosen.weights


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("entropy_weighted(beta=-1)", ["beta", "-1", "at least 0"]),
        ("entropy_weighted(beta='x')", ["beta", "'x'"]),
        ("cell(1.5, 0)", ["span", "1.5", "whole"]),
        ("cell(1, -0.1)", ["temperature", "-0.1"]),
        ("oracle(spans=[])", ["spans", "at least one"]),
        ("oracle(temperatures='a')", ["temperatures", "'a'"]),
    ],
)
def test_bad_options_are_refused_with_name_value_and_range(selector: str, words: list[str]) -> None:
    with pytest.raises(ValueError, match="=") as caught:
        select(texts_pool(["1"]), selector)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)
