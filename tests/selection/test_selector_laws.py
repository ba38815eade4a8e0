"""Laws that every selector keeps, on pools that hypothesis makes up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from eglr_selectors import (
    Cell,
    ParsedPool,
    Rollout,
    RolloutPool,
    Telemetry,
    available_selectors,
    parse_pool,
    select,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_builders import boxed

VOTES = [
    "majority",
    "span_balanced",
    "entropy_weighted(beta=1.5)",
    "logprob_weighted",
    "deepconf(keep=0.6)",
    "self_certainty",
    "weighted_vote",
    "weighted_vote(aggregate=max)",
]
SELECTORS = [*VOTES, "best_of_n", "first", "greedy", "cell(2, 0.7, 1)", "adaptive", "early_stop(window=2)"]

few = settings(max_examples=40, deadline=None)
figures = st.sampled_from([0.25, 0.5, 1.0, 1.75, 3.0])


@st.composite
def rollouts(draw: st.DrawFn, alike: bool = False) -> Rollout:
    answer = draw(st.sampled_from(["1", "2", "3", "0.5", r"\frac{1}{2}", None]))
    signal = [1.0] * 4 if alike else [draw(figures) for _ in range(4)]
    telemetry = Telemetry(
        mean_entropy=signal[0],
        mean_logprob=-signal[1],
        mean_confidence=signal[2],
        mean_self_certainty=signal[3],
    )
    score = 1.0 if alike else draw(figures)
    return Rollout(boxed(answer), Cell(), "stop", tokens=(1,) * 5, telemetry=telemetry, score=score)


@st.composite
def pools(draw: st.DrawFn, alike: bool = False, max_size: int = 9) -> RolloutPool:
    drawn = draw(st.lists(rollouts(alike=alike), max_size=max_size))
    cells = sorted(
        (draw(st.sampled_from([(0, 0.0), (0, 0.7), (2, 0.0), (2, 0.7)])) for _ in drawn), key=lambda c: c
    )
    seen: Counter[tuple[int, float]] = Counter()
    placed = []
    for rollout, cell in zip(drawn, cells, strict=True):
        placed.append(replace(rollout, cell=Cell(*cell, sample=seen[cell])))
        seen[cell] += 1
    return RolloutPool(tuple(placed))


def _solves(parsed: ParsedPool, selector: str) -> bool:
    index = select(parsed, selector).index
    return index is not None and bool(parsed.correct[index])


@given(pools())
@few
def test_no_selector_beats_the_oracle(pool: RolloutPool) -> None:
    parsed = parse_pool(pool, reference="1/2")
    best = _solves(parsed, "oracle")
    assert best == (True in parsed.correct)
    assert all(best or not _solves(parsed, selector) for selector in SELECTORS)
    for axis in ("temperature_oracle", "layer_oracle"):
        assert best or not _solves(parsed, axis)


@given(pools())
@few
def test_best_of_n_with_the_oracle_as_verifier_is_the_oracle(pool: RolloutPool) -> None:
    parsed = parse_pool(pool, reference="2")
    perfect = [float(bool(correct)) for correct in parsed.correct]
    chosen = select(parsed, "best_of_n", verifier=lambda problem, each: perfect)
    oracle = select(parsed, "oracle")
    assert (chosen.answer, chosen.index) == (oracle.answer, oracle.index)


@given(pools(), st.randoms(use_true_random=False))
@few
def test_permuting_rollouts_changes_no_vote(pool: RolloutPool, random) -> None:
    order = list(range(len(pool)))
    random.shuffle(order)
    parsed = parse_pool(pool)
    shuffled = parsed.subset(order)
    for selector in VOTES:
        before, after = select(parsed, selector), select(shuffled, selector)
        assert dict(before.weights) == dict(after.weights)
        top = max(before.weights.values(), default=0)
        if list(before.weights.values()).count(top) == 1:
            winner = max(before.weights, key=lambda number: before.weights[number])
            assert parsed.classes[before.index] == shuffled.classes[after.index] == winner


@given(pools())
@few
def test_ties_go_to_the_answer_that_came_first(pool: RolloutPool) -> None:
    parsed = parse_pool(pool)
    chosen = select(parsed, "majority")
    counts = Counter(number for number in parsed.classes if number >= 0)
    tied = {number for number, count in counts.items() if count == max(counts.values())}
    first = next((i for i, number in enumerate(parsed.classes) if number in tied), None)
    assert chosen.index == first


@given(pools(alike=True))
@few
def test_equal_weights_give_majority(pool: RolloutPool) -> None:
    parsed = parse_pool(pool)
    majority = select(parsed, "majority")
    for selector in set(VOTES) - {"span_balanced", "weighted_vote(aggregate=max)"}:
        chosen = select(parsed, selector)
        assert (chosen.answer, chosen.index) == (majority.answer, majority.index)
    one_span = parsed.subset(lambda rollout: rollout.cell.span == 0)
    assert select(one_span, "span_balanced").answer == select(one_span, "majority").answer


@given(pools(), st.integers(2, 4))
@few
def test_duplicating_a_pool_changes_no_majority(pool: RolloutPool, times: int) -> None:
    once = select(pool, "majority")
    often = select(RolloutPool(pool.rollouts * times), "majority")
    assert (once.answer, once.index) == (often.answer, often.index)
    assert {number: times * weight for number, weight in once.weights.items()} == often.weights


@given(pools())
@few
def test_a_selection_accounts_for_what_it_used(pool: RolloutPool) -> None:
    parsed = parse_pool(pool, reference="1")
    for selector in [*SELECTORS, "oracle", "temperature_oracle", "layer_oracle"]:
        chosen = select(parsed, selector)
        assert 0 <= chosen.rollouts <= len(pool)
        assert chosen.tokens == 5 * chosen.rollouts
        assert (chosen.answer is None) == bool(chosen.reason)
        assert set(chosen.weights) == set(chosen.answers)
        if chosen.index is not None and parsed.answers[chosen.index] is not None:
            assert chosen.answer == parsed.answers[chosen.index].text
        if chosen.weights:
            share = max(chosen.weights.values()) / sum(chosen.weights.values())
            assert chosen.confidence == pytest.approx(share)


@given(pools())
@few
def test_stopping_early_is_the_vote_over_what_was_consumed(pool: RolloutPool) -> None:
    parsed = parse_pool(pool)
    chosen = select(parsed, "adaptive")
    assert chosen.answer == select(parsed.subset(range(chosen.rollouts)), "majority").answer


def test_every_registered_selector_of_ours_is_under_these_laws() -> None:
    ours = {name for name, info in available_selectors().items() if info.origin.startswith("eglr_selectors.")}
    oracles = {"oracle", "temperature_oracle", "layer_oracle"}
    assert ours == {selector.partition("(")[0] for selector in SELECTORS} | oracles
