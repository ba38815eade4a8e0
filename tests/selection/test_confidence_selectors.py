"""DeepConf, self-certainty, verifier votes, sequential strategies: their papers' rules by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from eglr_selectors import Rollout, parse_pool, select
from eglr_selectors.verifiers import available_verifiers, get_verifier, register_verifier
from pool_builders import grid_pool, texts_pool


def _line(answers: Sequence[str | None], **telemetry):
    """A pool of one span at one temperature."""
    return grid_pool(answers, spans=(0,), temperatures=(0.7,) * len(answers), **telemetry)


def test_deepconf_weighs_by_mean_confidence() -> None:
    pool = _line(["1", "2", "2"], mean_confidence=[9.0, 4.0, 4.0])
    assert select(pool, "deepconf(keep=1)").weights == {0: 9.0, 1: 8.0}
    assert select(pool, "majority").answer == "2"


def test_deepconf_keeps_what_reaches_the_quantile() -> None:
    confidences = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    answers = ["1"] * 7 + ["2", "2", "3"]
    pool = _line(answers, mean_confidence=confidences)
    # numpy's quantiles: 0.9 of them reach 1.9, 0.25 reach 7.75, 0.1 reach 9.1
    assert select(pool, "deepconf").weights == {0: 27.0, 1: 17.0, 2: 10.0}
    assert select(pool, "deepconf(keep=0.25)").weights == {1: 17.0, 2: 10.0}
    assert select(pool, "deepconf(keep=0.1)").answer == "3"
    assert select(pool, "deepconf(keep=0.1)").index == 9


def test_deepconf_measures_parts_of_the_trace() -> None:
    early_doubt = (0.0, 2.0, 8.0, 8.0)
    late_doubt = (8.0, 8.0, 6.0, 2.0)
    pool = _line(["1", "2"], token_confidences=[early_doubt, late_doubt])
    expected = {
        "mean": {0: 4.5, 1: 6.0},
        "tail": {0: 8.0, 1: 4.0},
        "lowest": {0: 1.0, 1: 4.0},
        "bottom": {0: 1.0, 1: 4.0},
    }
    for measure, weights in expected.items():
        assert select(pool, "deepconf", measure=measure, window=2, keep=1).weights == weights
        whole = select(pool, "deepconf", measure=measure, window=9, keep=1).weights
        assert whole == {0: 4.5, 1: 6.0}


def test_deepconf_bottom_averages_the_lowest_tenth_of_the_windows() -> None:
    trace = tuple(float(value) for value in range(21))
    pool = _line(["1"], token_confidences=[trace])
    windows = [(a + b) / 2 for a, b in pairwise(trace)]
    lowest_two = (windows[0] + windows[1]) / 2
    assert select(pool, "deepconf", measure="bottom", window=2).weights == {0: lowest_two}


def test_deepconf_reads_each_trace_as_if_it_were_alone() -> None:
    rng = random.Random(0)
    traces = [tuple(rng.random() for _ in range(length)) for length in (3, 50, 7, 50, 21, 6)]
    traces[3] = traces[1]
    together = _line([str(i) for i in range(6)], token_confidences=traces)
    for measure in ("bottom", "lowest", "tail"):
        weights = select(together, "deepconf", measure=measure, window=6, keep=1).weights
        assert weights[1] == weights[3]
        for number, trace in enumerate(traces):
            windows = [sum(trace[i : i + 6]) / 6 for i in range(max(1, len(trace) - 5))]
            expected = {
                "bottom": sorted(windows)[: max(1, len(windows) // 10)],
                "lowest": [min(windows)],
                "tail": windows[-1:],
            }[measure]
            if len(trace) < 6:
                expected = [sum(trace) / len(trace)]
            assert weights[number] == pytest.approx(sum(expected) / len(expected))


def test_self_certainty_is_a_borda_count() -> None:
    pool = _line(["1", "2", "2", None], mean_self_certainty=[9.0, 1.0, 2.0, 5.0])
    linear = select(pool, "self_certainty", power=1)
    assert linear.weights == {0: 4.0, 1: 3.0}
    assert linear.answer == "1"
    assert select(pool, "self_certainty", power=0).answer == "2"
    rooted = select(pool, "self_certainty")
    assert rooted.weights[1] == pytest.approx(1 + math.sqrt(2))
    ties = _line(["1", "2", "3"], mean_self_certainty=[1.0, 1.0, 1.0])
    assert len(set(select(ties, "self_certainty", power=3).weights.values())) == 1


@pytest.mark.parametrize(
    "selector", ["deepconf", "deepconf(measure='tail')", "self_certainty", "weighted_vote"]
)
def test_what_is_not_known_is_undefined(selector: str) -> None:
    for pool in (texts_pool(["1", "1"]), _line(["1", "1"])):
        chosen = select(pool, selector)
        assert (chosen.answer, chosen.index, dict(chosen.weights)) == (None, None, {})
        assert "knows" in chosen.reason or "score" in chosen.reason


def test_weighted_vote_sums_or_takes_the_largest() -> None:
    pool = texts_pool(["1", "2", "2", "1", None], scores=[0.6, 0.5, 0.5, 0.1, 9.0])
    summed = select(pool, "weighted_vote")
    assert (summed.answer, summed.weights) == ("2", {0: 0.7, 1: 1.0})
    assert summed.confidence == pytest.approx(1 / 1.7)
    assert select(pool, "weighted_vote(aggregate=max)").weights == {0: 0.6, 1: 0.5}
    logits = texts_pool(["1", "2", "2"], scores=[-3.0, -2.0, -2.0])
    assert "negative" in select(logits, "weighted_vote").reason
    largest = select(logits, "weighted_vote(aggregate=max)")
    assert largest.answer == "2"
    assert math.isnan(largest.confidence)


def test_a_verifier_may_be_a_function_an_object_or_a_name() -> None:
    calls = []

    def length(problem: str, rollouts: Sequence[Rollout]) -> list[float]:
        calls.append(problem)
        return [math.nan if "8" in rollout.text else len(rollout.text) for rollout in rollouts]

    class Shortest:
        def score(self, problem: str, rollouts: Sequence[Rollout]) -> list[float]:
            return [1 / len(rollout.text) for rollout in rollouts]

    @register_verifier("length_by_name")
    def length_by_name(*, sign: int = 1):
        """Longer is better."""
        return lambda problem, rollouts: [sign * len(rollout.text) for rollout in rollouts]

    parsed = parse_pool(texts_pool(["1", "22", "8888", "22"]), problem="Why?")
    assert select(parsed, "best_of_n", verifier=length).answer == "22"
    assert select(parsed, "weighted_vote", verifier=length).answer == "22"
    assert calls == ["Why?"]
    assert select(parsed, "best_of_n", verifier=Shortest()).index == 0
    assert select(parsed, "best_of_n(verifier=length_by_name)").index == 2
    assert select(parsed, "best_of_n(verifier=length_by_name(sign=-1))").index == 0
    assert get_verifier("length_by_name(sign=2)") is get_verifier("length_by_name", sign=2)
    assert available_verifiers()["length_by_name"].options == {"sign": 1}


def test_a_function_can_be_named_by_its_module() -> None:
    pool = texts_pool(["1", "2"])
    assert select(pool, "best_of_n(verifier=callable(target='verifier_of_tests:last'))").index == 1
    with pytest.raises(ValueError, match="target='nothing'"):
        select(pool, "best_of_n(verifier=callable(target='nothing'))")


def test_bad_verifiers_are_refused() -> None:
    pool = texts_pool(["1", "2"])
    with pytest.raises(ValueError, match="1 scores for 2 rollouts"):
        select(pool, "best_of_n", verifier=lambda problem, rollouts: [0.0])
    with pytest.raises(ValueError, match="verifier 'calable'.*did you mean callable"):  # noqa: RUF043
        select(pool, "best_of_n(verifier=calable)")
    with pytest.raises(TypeError, match="verifier=3"):
        select(pool, "best_of_n", verifier=3)


def test_adaptive_stops_when_four_agree() -> None:
    # P(p > 1/2 | Beta(4, 1)) = 1 - 1/16 after three, 1 - 1/32 after four equal answers
    chosen = select(_line(["1"] * 9), "adaptive")
    assert (chosen.answer, chosen.rollouts, chosen.tokens) == ("1", 4, 1 + 2 + 3 + 4)
    assert select(_line(["1"] * 9), "adaptive(threshold=0.93)").rollouts == 3


def test_adaptive_goes_on_while_two_answers_compete() -> None:
    from scipy.stats import beta

    answers = ["1", "2", None, "1", "1", "2", "1", "1", "1", "1", "1", "1"]
    chosen = select(_line(answers), "adaptive")
    settled = [
        beta.sf(0.5, max(ones, twos) + 1, min(ones, twos) + 1) >= 0.95
        for end in range(1, len(answers) + 1)
        for ones, twos in [(answers[:end].count("1"), answers[:end].count("2"))]
    ]
    assert chosen.rollouts == settled.index(True) + 1 == 11
    assert select(_line(["1", "2", "1"]), "adaptive").rollouts == 3


def test_early_stop_wants_a_whole_window() -> None:
    answers = ["1", "2", "2", "2", "2", "2", "1", "1"]
    chosen = select(_line(answers), "early_stop(window=2)")
    assert (chosen.answer, chosen.index, chosen.rollouts, chosen.tokens) == ("2", 2, 4, 10)
    assert select(_line(answers), "early_stop(window=5)").rollouts == 8
    assert select(_line(["1", None, None, None, "1"]), "early_stop(window=2)").answer == "1"


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("deepconf(measure=median)", ["measure", "'median'", "tail, bottom"]),
        ("deepconf(keep=0)", ["keep=0", "above 0"]),
        ("deepconf(window=0)", ["window=0", "at least 1"]),
        ("self_certainty(power=-1)", ["power=-1"]),
        ("adaptive(threshold=0.4)", ["threshold=0.4", "0.5", "1"]),
        ("early_stop(window=2.5)", ["window=2.5"]),
        ("weighted_vote(aggregate=mean)", ["aggregate='mean'", "sum, max"]),
    ],
)
def test_bad_options_are_refused(selector: str, words: list[str]) -> None:
    with pytest.raises(ValueError, match="=") as caught:
        select(texts_pool(["1"]), selector)
    assert all(word in str(caught.value) for word in words)
