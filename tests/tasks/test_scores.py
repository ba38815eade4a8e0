"""What a problem's scores and logged details are, by hand-made pools."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from eglr_selectors import Rollout, RolloutPool, Rules

from lm_eval_eglr.harness.filters import PoolReader, SelectFilter, WholePool
from lm_eval_eglr.harness.instances import PoolResponse
from lm_eval_eglr.harness.scores import Scores, score

ENDED = Rollout(r"\boxed{4}", finish_reason="stop")
CUT = Rollout("It is", finish_reason="length")


def responses(*rollouts: Rollout) -> list[str]:
    return [PoolResponse.of("", RolloutPool(rollouts))]


def scored(selector: str | None, rollouts: list[str], doc: dict[str, Any], **options: Any) -> Scores:
    reader = PoolReader(**options)
    chosen = WholePool(reader) if selector is None else SelectFilter(selector, reader)
    return score(doc, chosen.apply([rollouts], [doc]))


def test_details_are_stored_but_not_aggregated() -> None:
    scores = Scores({"exact_match": 1.0}, {"answer": "4"})
    logged: dict[str, Any] = {}
    logged.update(scores)
    assert logged == {"exact_match": 1.0, "answer": "4"}
    assert list(scores.items()) == [("exact_match", 1.0)]
    again = pickle.loads(pickle.dumps(scores))
    assert (dict(again.items()), again["answer"]) == ({"exact_match": 1.0}, "4")


def test_a_selection_tells_answer_verdict_and_end() -> None:
    scores = scored("majority", responses(CUT, ENDED), {"answer": "4"})
    assert dict(scores.items()) == {"exact_match": 1.0}
    assert (scores["answer"], scores["verdict"], scores["no_answer"]) == ("4", "correct", False)
    assert (scores["truncated"], scores["rollout"]) == (False, 1)


def test_a_pool_without_answers_is_wrong_and_says_why() -> None:
    scores = scored("majority", responses(CUT, CUT), {"answer": "4"})
    assert scores["exact_match"] == 0.0
    assert (scores["answer"], scores["verdict"], scores["no_answer"]) == (None, "no_answer", True)


def test_what_a_model_thinks_is_not_its_answer() -> None:
    text = r"<think>Perhaps \boxed{5}. Problem: another?</think> It is \boxed{4}."
    assert scored("majority", [text], {"answer": "4"})["answer"] == "4"
    assert scored("majority", [r"<think>Surely \boxed{4}"], {"answer": "4"})["verdict"] == "no_answer"


def test_an_undefined_selection_is_nan() -> None:
    scores = scored("greedy", [r"\boxed{4}"], {"answer": "4"})
    assert math.isnan(scores["exact_match"])
    assert scores["verdict"] == "undefined"


def test_a_pool_tells_every_answer_and_verdict() -> None:
    scores = scored(None, responses(ENDED, CUT, Rollout(r"\boxed{5}", finish_reason="stop")), {"answer": "4"})
    assert scores["truncated"] == scores["no_answer"] == pytest.approx(1 / 3)
    assert scores["answers"] == ["4", None, "5"]
    assert scores["verdicts"] == ["correct", "no_answer", "wrong"]
    assert scores["cut_off"] == [False, True, False]
    assert "answers" not in dict(scores.items())


def test_texts_of_unknown_end_are_not_called_whole() -> None:
    assert math.isnan(scored(None, [r"\boxed{4}", "none"], {"answer": "4"})["truncated"])


@pytest.mark.parametrize(("answer", "right"), [("4.2", 1.0), ("4.1", 1.0), ("4.3", 1.0), ("4.35", 0.0)])
def test_a_document_may_have_a_tolerance_of_its_own(answer: str, right: float) -> None:
    doc = {"answer": "4.2", "tolerance": 0.1}
    assert (
        scored("majority", [rf"\boxed{{{answer}}}"], doc, rules=Rules.named("olympiad"))["exact_match"]
        == right
    )


def test_documents_with_and_without_tolerance_keep_their_order() -> None:
    docs = [{"answer": "4.2"}, {"answer": "4.2", "tolerance": 0.1}, {"answer": "4.2", "tolerance": 0.0}]
    filtered = SelectFilter("majority", PoolReader()).apply([[r"\boxed{4.1}"]] * 3, docs)
    assert [score(doc, [each])["exact_match"] for doc, each in zip(docs, filtered, strict=True)] == [0, 1, 0]
