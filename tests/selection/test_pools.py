"""Pools made of texts, and what is refused before a selector sees it."""

from __future__ import annotations

import json

import pytest
from eglr_selectors import ParsedPool, Rollout, RolloutPool, parse_pool
from eglr_selectors.pool import Cell, Telemetry, rollout_from_record
from eglr_selectors.verifiers import LearnedVerifier, RewardModel


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RolloutPool.from_texts("4"), TypeError, "texts: expected a sequence of strings, not one"),
        (lambda: RolloutPool.from_texts(["4", 4]), TypeError, r"texts\[1\]=4: expected a string"),
        (lambda: RolloutPool.from_texts(["4"], scores=[1, 2]), ValueError, "scores: 2 values for 1 texts"),
        (lambda: Rollout("4", finish_reason="bored"), ValueError, "finish_reason='bored': expected one of"),
        (
            lambda: ParsedPool(RolloutPool.from_texts(["4"]), (), ()),
            ValueError,
            "answers: 0 values for 1 rollouts",
        ),
        (lambda: RewardModel(lambda: None, sigmoid=1), ValueError, "sigmoid=1: expected True or False"),
        (
            lambda: LearnedVerifier(None, frozenset(), None, allow_fitted="yes"),
            ValueError,
            "allow_fitted='yes': expected True or False",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(make, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_records_are_json_and_give_the_pool_back() -> None:
    telemetry = Telemetry(
        mean_entropy=0.5,
        mean_logprob=-0.375,
        mean_confidence=1.5,
        mean_self_certainty=2.0,
        recursions=3,
        token_logprobs=(-0.5, -0.25),
    )
    pool = RolloutPool(
        (
            Rollout("4", Cell(2, 0.7, 1), "stop", (5, 6), telemetry, 0.5),
            Rollout("5", Cell(0, None, 0, path=((3, 1),))),
        )
    )
    records = json.loads(json.dumps(pool.to_records()))
    assert tuple(rollout_from_record(record) for record in records) == pool.rollouts
    with pytest.raises(KeyError, match="cell"):
        rollout_from_record({"text": "4"})


def test_a_pool_without_a_reference_has_no_verdicts() -> None:
    parsed = parse_pool(RolloutPool.from_texts([r"\boxed{4}", "no idea"]))
    assert parsed.correct == (None, None)
    assert [answer is None for answer in parsed.answers] == [False, True]
