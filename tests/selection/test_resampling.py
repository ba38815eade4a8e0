"""Bootstrap intervals and McNemar's test: against their definitions, seeded, with what is not defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from eglr_selectors.estimators import bootstrap, mcnemar, paired_bootstrap


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


def _direct(values: np.ndarray, confidence: float, samples: int, seed: int) -> list[float]:
    """The percentile interval from all resamples at once."""
    places = np.random.default_rng(seed).integers(len(values), size=(samples, len(values)))
    tail = 100 * (1 - confidence) / 2
    return list(np.percentile(values[places].mean(axis=1), [tail, 100 - tail]))


@pytest.mark.parametrize(("problems", "samples"), [(7, 1), (7, 3), (7, 500), (5000, 1000)])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 1.0])
def test_the_interval_cuts_equal_tails_off_exactly_so_many_resamples(
    problems: int, samples: int, confidence: float
) -> None:
    # of 5000 problems, 419 resamples are held at once, and none are kept
    values = np.random.default_rng(1).random(problems)
    interval = bootstrap(values, confidence=confidence, samples=samples, seed=5)
    expected = _direct(values, confidence, samples, 5)
    assert [interval.low, interval.high] == pytest.approx(expected, rel=1e-12)
    assert interval.problems == problems


def test_the_seed_is_zero_unless_another_is_given() -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap(values) == bootstrap(values, seed=0)
    assert paired_bootstrap(values, values**2) == paired_bootstrap(values, values**2, seed=0)


def test_a_paired_interval_is_that_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(40), rng.random(40)
    options = {"confidence": 0.6, "samples": 150, "seed": 3}
    paired = paired_bootstrap(first, second, **options)
    assert paired == bootstrap(first - second, **options)
    for name, value in (("confidence", 0.61), ("samples", 151), ("seed", 4)):
        assert paired != paired_bootstrap(first, second, **{**options, name: value})


def test_nothing_has_no_interval_and_no_test() -> None:
    for interval in (bootstrap([]), bootstrap([math.nan]), paired_bootstrap([math.nan], [1.0])):
        assert all(map(math.isnan, (interval.value, interval.low, interval.high)))
        assert (interval.problems, interval.reason) == (0, "no problem is defined")
    for tested in (mcnemar([], []), mcnemar([math.nan, 1], [1, math.nan])):
        assert (tested.only_first, tested.only_second) == (0, 0)
        assert math.isnan(tested.p_value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("confidence", 0),
        ("confidence", -0.5),
        ("confidence", 1.5),
        ("confidence", math.nan),
        ("samples", 0),
        ("samples", 2.5),
    ],
)
def test_bad_options_are_refused_by_name(name: str, value: float) -> None:
    for call in (bootstrap, lambda values, **options: paired_bootstrap(values, values, **options)):
        with pytest.raises(ValueError, match=f"^{name}={value}: expected a ") as caught:
            call([0.0, 1.0], **{name: value})
        assert "\n" not in str(caught.value)
