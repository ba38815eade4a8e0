"""Estimators against brute force over all subsets, and against each other."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from eglr_selectors import RolloutPool, get_selector, parse_pool, select
from eglr_selectors.estimators import (
    accuracies,
    accuracy,
    best_of_k,
    curve,
    maj_at_k,
    pass_at_k,
    score_selection,
    selector_at_k,
)
from eglr_selectors.parsed import ParsedPool
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_builders import boxed, texts_pool, ungraded
from verifier_of_tests import last

few = settings(max_examples=60, deadline=None)
answers = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=8)
scored = st.lists(
    st.tuples(st.sampled_from(["1", "2", None]), st.sampled_from([0.1, 0.5, 0.9])), min_size=1, max_size=7
)


def brute(parsed: ParsedPool, k: int, selector) -> float:
    """Mean over all k-subsets of whether a selector is right on them."""
    subsets = [parsed.subset(indices) for indices in itertools.combinations(range(len(parsed)), k)]
    return float(np.mean([score_selection(subset, select(subset, selector))[0] for subset in subsets]))


@given(answers, st.integers(1, 8))
@few
def test_pass_at_k_is_the_oracle_over_all_subsets(given_answers, k: int) -> None:
    parsed = parse_pool(texts_pool(given_answers), reference="1")
    value = pass_at_k([parsed], k).values[0]
    if k > len(parsed):
        assert math.isnan(value)
    else:
        assert value == pytest.approx(brute(parsed, k, "oracle"), abs=1e-12)


@given(answers, st.integers(1, 8))
@few
def test_maj_at_k_is_majority_over_all_subsets(given_answers, k: int) -> None:
    parsed = parse_pool(texts_pool(given_answers), reference="1")
    estimate = maj_at_k([parsed], k)
    if k > len(parsed):
        assert f"k={k}" in estimate.reasons[0]
    else:
        assert estimate.values[0] == pytest.approx(brute(parsed, k, "majority"), abs=1e-12)
        assert estimate.standard_errors[0] == 0


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2, -1]), st.booleans()), min_size=1, max_size=7),
    st.integers(1, 7),
)
@few
def test_maj_at_k_counts_right_answers_of_several_classes(rollouts, k: int) -> None:
    # equality to the reference is not transitive: members of a class need not be right together
    read = parse_pool(texts_pool([None if number < 0 else "1" for number, _ in rollouts]))
    correct = tuple(number >= 0 and right for number, right in rollouts)
    numbers = tuple(number for number, _ in rollouts)
    parsed = ParsedPool(read.pool, read.answers, numbers, "1", "", lambda: correct)
    k = min(k, len(parsed))
    assert maj_at_k([parsed], k).values[0] == pytest.approx(brute(parsed, k, "majority"), abs=1e-12)


@given(scored, st.integers(1, 7))
@few
def test_best_of_k_is_best_of_n_over_all_subsets(pairs, k: int) -> None:
    pool = texts_pool([answer for answer, _ in pairs], [score for _, score in pairs])
    parsed = parse_pool(pool, reference="1")
    value = best_of_k([parsed], k).values[0]
    if k > len(parsed):
        assert math.isnan(value)
    else:
        assert value == pytest.approx(brute(parsed, k, "best_of_n"), abs=1e-12)


@pytest.mark.parametrize("verifier", [last, "callable(target='verifier_of_tests:last')"])
def test_best_of_k_asks_its_verifier(verifier) -> None:
    parsed = parse_pool(texts_pool(["1", "2", None, "1", "3", None], [6, 5, 4, 3, 2, 1]), reference="1")
    choice = get_selector("best_of_n", verifier=verifier)
    for k in range(1, 7):
        value = best_of_k([parsed], k, verifier).values[0]
        assert value == pytest.approx(brute(parsed, k, choice), abs=1e-12)
    assert best_of_k([parsed], 6).mean == 1
    assert best_of_k([parsed], 6, verifier).mean == 0
    unscored = best_of_k([parse_pool(texts_pool(["1", "2"]), "1")], 1)
    assert math.isnan(unscored.mean)
    assert unscored.reasons == ("no rollout has a score",)


@given(answers)
@few
def test_one_rollout_is_mean_accuracy_and_all_are_the_selector(given_answers) -> None:
    parsed = parse_pool(texts_pool(given_answers), reference="1")
    mean = given_answers.count("1") / len(given_answers)
    for estimator in (pass_at_k, maj_at_k):
        assert estimator([parsed], 1).values[0] == pytest.approx(mean, abs=1e-12)
    whole = len(parsed)
    assert maj_at_k([parsed], whole).values[0] == pytest.approx(accuracy([parsed], "majority").mean)
    assert pass_at_k([parsed], whole).values[0] == pytest.approx(accuracy([parsed], "oracle").mean)


def test_pass_at_k_of_large_pools_keeps_its_digits() -> None:
    # 1 - C(990, 100) / C(1000, 100), with whole numbers
    exact = 1 - math.comb(990, 100) / math.comb(1000, 100)
    parsed = parse_pool(texts_pool(["1"] * 10 + ["2"] * 990), reference="1")
    assert pass_at_k([parsed], 100).values[0] == pytest.approx(exact, rel=1e-10)


def test_maj_at_k_counts_large_pools() -> None:
    # two classes and no ties: the majority of 33 among 40 right and 24 wrong is hypergeometric
    from scipy.stats import hypergeom

    parsed = parse_pool(texts_pool((["1"] * 5 + ["2"] * 3) * 8), reference="1")
    expected = hypergeom.sf(16, 64, 40, 33)
    assert maj_at_k([parsed], 33).values[0] == pytest.approx(expected, rel=1e-12)


def test_maj_at_k_counts_500_rollouts_and_draws_beyond() -> None:
    from scipy.stats import hypergeom

    texts = (["1"] * 3 + ["2"] * 2) * 100
    counted = maj_at_k([parse_pool(texts_pool(texts), reference="1")], 5)
    assert counted.values[0] == pytest.approx(hypergeom.sf(2, 500, 300, 5))
    assert counted.standard_errors[0] == 0
    larger = parse_pool(texts_pool([*texts, "1"]), reference="1")
    drawn = maj_at_k([larger], 5, samples=200, seed=3)
    assert abs(drawn.values[0] - hypergeom.sf(2, 501, 301, 5)) < 4 * drawn.standard_errors[0]
    same = selector_at_k([larger], "majority", 5, samples=200, seed=3)
    assert (drawn.mean, drawn.standard_error) == (same.mean, same.standard_error)
    assert maj_at_k([larger], 5, samples=200).mean == maj_at_k([larger], 5, samples=200, seed=0).mean


def test_monte_carlo_agrees_within_its_error_and_repeats() -> None:
    parsed = parse_pool(texts_pool((["1"] * 2 + ["2"] * 2 + [None]) * 4), reference="2")
    exact = maj_at_k([parsed], 9).values[0]
    drawn = selector_at_k([parsed], "majority", 9, samples=400, seed=3)
    assert drawn.standard_errors[0] > 0
    assert abs(drawn.values[0] - exact) < 4 * drawn.standard_errors[0]
    assert drawn.mean == selector_at_k([parsed], "majority", 9, samples=400, seed=3).mean
    assert drawn.mean != selector_at_k([parsed], "majority", 9, samples=400, seed=4).mean
    assert drawn.standard_error == pytest.approx(drawn.standard_errors[0])


@pytest.mark.parametrize("samples", [10, 400])
def test_the_monte_carlo_error_is_that_of_a_mean(samples: int) -> None:
    parsed = parse_pool(texts_pool((["1"] * 2 + ["2"] * 2 + [None]) * 4), reference="2")
    drawn = selector_at_k([parsed], "majority", 9, samples=samples)
    share = drawn.values[0]  # of the draws that are right, each 0 or 1
    assert 0 < share < 1
    assert drawn.standard_errors[0] == pytest.approx(math.sqrt(share * (1 - share) / (samples - 1)))
    assert drawn.reasons == ("",)
    assert share == selector_at_k([parsed], "majority", 9, samples=samples, seed=0).values[0]


def test_every_rollout_is_drawn_as_often() -> None:
    parsed = parse_pool(texts_pool(["1"] * 30 + ["2"] * 30), reference="1")
    for k in (1, 2, 58, 59):
        drawn = selector_at_k([parsed], "first", k, samples=59)
        exact = selector_at_k([parsed], "first", k, samples=1770)
        assert (exact.standard_errors[0] == 0, drawn.standard_errors[0] > 0) == (True, k <= 2)
        assert abs(drawn.values[0] - exact.values[0]) <= 4 * drawn.standard_errors[0]


def test_too_few_samples_are_refused() -> None:
    parsed = parse_pool(texts_pool(["1", "1", "1"]), reference="1")
    assert selector_at_k([parsed], "majority", 2, samples=2).mean == 1
    for samples in (1, 0, 2.5):
        with pytest.raises(ValueError, match=f"^samples={samples}: expected a whole number of at least 2"):
            selector_at_k([parsed], "majority", 2, samples=samples)


def test_a_selector_that_is_undefined_on_a_subset_says_why() -> None:
    estimate = selector_at_k([parse_pool(texts_pool(["1", "2"]), "1")], "self_certainty", 1)
    assert math.isnan(estimate.mean)
    assert estimate.reasons == ("no rollout knows its self-certainty",)


def test_few_subsets_are_enumerated() -> None:
    parsed = parse_pool(texts_pool(["1", "2", "1", "2"]), reference="1")
    every = selector_at_k([parsed], "majority", 3, samples=4)
    assert (every.values[0], every.standard_errors[0]) == (maj_at_k([parsed], 3).values[0], 0)
    seven = parse_pool(texts_pool(["1", "2", None, "3", "1", "2", "1"]), reference="1")
    for samples in (35, 1000):
        every = selector_at_k([seven], "majority", 3, samples=samples)
        assert every.values[0] == pytest.approx(brute(seven, 3, "majority"), abs=1e-12)
        assert every.standard_errors[0] == 0
    assert selector_at_k([seven], "majority", 3, samples=34).standard_errors[0] > 0


def test_a_problems_draws_do_not_depend_on_the_others() -> None:
    first = parse_pool(texts_pool(["1", "2"] * 8), reference="1")
    second = parse_pool(texts_pool(["2", "1"] * 8), reference="1")
    short = parse_pool(texts_pool(["2"]), reference="1")
    together = selector_at_k([first, second], "majority", 8, samples=50)
    beside = selector_at_k([short, second], "majority", 8, samples=50)
    assert together.values[1] == beside.values[1]
    assert math.isnan(beside.values[0])


def test_ungraded_rollouts_are_left_out_and_never_wrong() -> None:
    parsed = ungraded(parse_pool(texts_pool(["1", "3", "2", "1"]), reference="1"), {1})
    assert pass_at_k([parsed], 1).mean == pytest.approx(2 / 3)
    assert maj_at_k([parsed], 3).mean == 1
    assert pass_at_k([parsed], 4).reasons == ("k=4: 3 of 4 rollouts are graded",)
    picked = accuracy([parsed], "cell(0, 0)")
    assert math.isnan(picked.mean)
    assert math.isnan(accuracy([parsed], lambda pool: 1).mean)
    assert "graded" in accuracy([parsed], lambda pool: 1).reasons[0]


def test_the_oracle_does_not_claim_to_have_failed_where_it_cannot_know() -> None:
    parsed = ungraded(parse_pool(texts_pool(["2", "3", "2"]), reference="1"), {1})
    assert select(parsed, "oracle").index == 1
    assert math.isnan(accuracy([parsed], "oracle").mean)
    solved = ungraded(parse_pool(texts_pool(["2", "3", "1"]), reference="1"), {1})
    assert select(solved, "oracle").index == 2


def test_accuracy_tells_failures_from_undefined() -> None:
    pools = [
        parse_pool(texts_pool(["1"]), "1"),
        parse_pool(texts_pool(["2"]), "1"),
        parse_pool(texts_pool([None]), "1"),
        parse_pool(texts_pool(["1"])),
        parse_pool(RolloutPool(()), "1"),
    ]
    estimate = accuracy(pools, "majority")
    assert np.array_equal(estimate.values, [1, 0, 0, math.nan, math.nan], equal_nan=True)
    assert (estimate.mean, estimate.defined) == (pytest.approx(1 / 3), 3)
    assert estimate.reasons[3:] == ("there is no reference", "the pool is empty")
    blind = accuracy(pools, "self_certainty")
    assert (blind.defined, math.isnan(blind.mean), math.isnan(blind.standard_error)) == (0, True, True)


def test_accuracies_are_those_of_each_selector_by_its_label() -> None:
    pools = [parse_pool(texts_pool(["1", "1", "2"]), "1"), parse_pool(texts_pool(["1", "1", "2"]), "2")]

    def second(parsed: ParsedPool) -> int:
        return 1

    scores = accuracies(pools, iter(["majority", "oracle", "entropy_weighted(beta=0)", second]))
    assert {label: estimate.values.tolist() for label, estimate in scores.items()} == {
        "majority": [1, 0],
        "oracle": [1, 1],
        "entropy_weighted(beta=0)": [1, 0],
        "second": [1, 0],
    }
    assert list(scores) == ["majority", "oracle", "entropy_weighted(beta=0)", "second"]
    assert accuracies(pools, []) == {}


def test_a_curve_runs_over_powers_of_two_and_the_whole_pool() -> None:
    pools = [parse_pool(texts_pool(["1", "2"] * 3), "1"), parse_pool(texts_pool(["1"] * 9), "1")]
    passes = curve(pass_at_k, pools)
    assert list(passes) == [1, 2, 4, 6]
    means = [estimate.mean for estimate in passes.values()]
    assert means == sorted(means)
    assert list(curve(maj_at_k, pools, [3])) == [3]
    assert curve(pass_at_k, []) == {}


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_a_bad_k_is_refused(k) -> None:
    with pytest.raises(ValueError, match=f"k={k}"):
        pass_at_k([parse_pool(texts_pool([boxed("1")]), "1")], k)
