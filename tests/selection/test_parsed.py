"""Reading a pool's answers once: classes, grades, sub-pools."""

from __future__ import annotations

import pickle

import pytest
from eglr_selectors import Cell, Rollout, RolloutPool, Rules, parse_pool, parse_pools, select
from eglr_selectors import parsed as parsed_module
from pool_builders import grid_pool, texts_pool

ANSWERS = ["1", "0.5", r"\frac{1}{2}", None, "1.0", "7"]


def test_answers_are_read_and_equal_ones_share_a_class() -> None:
    parsed = parse_pool(texts_pool(ANSWERS), reference="1/2")
    assert [answer and answer.text for answer in parsed.answers] == ANSWERS
    assert parsed.classes == (0, 1, 1, -1, 0, 2)
    assert parsed.answered == (0, 1, 2, 4, 5)
    assert parsed.correct == (False, True, True, False, False, False)


def test_it_is_a_sequence_of_rollouts() -> None:
    pool = grid_pool(ANSWERS)
    parsed = parse_pool(pool)
    assert len(parsed) == 6
    assert list(parsed) == list(pool.rollouts)
    assert parsed[-1] is pool[5]
    assert parsed.problem == "How many?"
    assert parse_pool(pool, problem="Why?").problem == "Why?"


def test_without_a_reference_nothing_is_graded() -> None:
    assert parse_pool(texts_pool(ANSWERS)).correct == (None,) * 6


def test_a_sub_pool_keeps_classes_and_grades() -> None:
    parsed = parse_pool(grid_pool(ANSWERS), reference="7")
    spans = parsed.subset(lambda rollout: rollout.cell.span == 2)
    assert (spans.classes, spans.correct) == ((-1, 0, 2), (False, False, True))
    backwards = parsed.subset([5, -5])
    assert [rollout.text for rollout in backwards] == [parsed[5].text, parsed[1].text]
    assert backwards.correct == (True, False)
    with pytest.raises(IndexError):
        parsed.subset([6])


def test_many_pools_are_graded_in_one_call_and_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(pairs, rules):
        calls.append([(gold, answer.text) for gold, answer in pairs])
        return grade_many(pairs, rules)

    grade_many = parsed_module.grade_many
    monkeypatch.setattr(parsed_module, "grade_many", counted)
    pools = [texts_pool(["1", "2", "1"]), texts_pool(["3", None]), texts_pool(["4"])]
    first, second, third = parse_pools(pools, ["1", "3", None])
    assert calls == []
    assert (first.correct, second.correct, third.correct) == ((True, False, True), (True, False), (None,))
    assert calls == [[("1", "1"), ("1", "2"), ("3", "3")]]


def test_rules_and_fallbacks_are_the_graders() -> None:
    pool = RolloutPool.from_texts(["the answer is 12.", "12 it is", "nothing"])
    assert parse_pool(pool).answered == ()
    assert parse_pool(pool, fallbacks=["phrase", "last_number"]).classes == (0, 0, -1)
    metres = texts_pool(["3 m", "3"])
    assert parse_pool(metres, "3").correct == (False, True)
    assert parse_pool(metres, "3", Rules(units="any")).correct == (True, True)
    assert select(metres, "majority", rules=Rules(units="any")).confidence == 1.0


def test_a_parsed_pool_travels_between_processes() -> None:
    parsed = parse_pool(texts_pool(ANSWERS), reference="7").subset(range(3, 6))
    copy = pickle.loads(pickle.dumps(parsed))
    assert (copy.classes, copy.correct) == (parsed.classes, parsed.correct)
    many = parse_pools([texts_pool(["1"] * 50)] * 40, ["1"] * 40)
    assert len(pickle.dumps(many[0])) < 3 * len(pickle.dumps(parse_pool(texts_pool(["1"] * 50), "1")))


def test_mismatched_inputs_are_refused() -> None:
    pool = texts_pool(["1"])
    with pytest.raises(ValueError, match="references: 2 values for 1 pools"):
        parse_pools([pool], ["1", "2"])
    with pytest.raises(ValueError, match="problems"):
        parse_pools([pool], problems=[])
    parsed = parse_pool(pool, "1")
    assert select(parsed, "oracle", "1").answer == "1"
    with pytest.raises(ValueError, match="reference='2'"):
        select(parsed, "oracle", "2")
    with pytest.raises(ValueError, match="parsed already"):
        select(parsed, "majority", fallbacks=["phrase"])
    with pytest.raises(ValueError, match="parsed already"):
        select(parsed, "majority", rules=Rules(units="any"))


def test_the_last_number_of_a_truncated_rollout_is_no_answer():
    texts = {"length": "3 + 4 = 7, and then 12", "stop": "3 + 4 = 7, and then 12"}
    pool = RolloutPool(
        tuple(Rollout(text, Cell(sample=i), reason) for i, (reason, text) in enumerate(texts.items()))
    )
    parsed = parse_pool(pool, "12", fallbacks=("phrase", "last_number"))
    assert [answer and answer.text for answer in parsed.answers] == [None, "12"]
    assert parsed.correct == (False, True)
    phrase = RolloutPool((Rollout("The answer is 12. And", finish_reason="length"),))
    assert parse_pool(phrase, "12", fallbacks=("phrase", "last_number")).correct == (True,)
