"""The reward functions by themselves: what counts as right, as well formed, and that no text does harm."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest
from eglr_selectors import Rules

import lm_eval_eglr.trl
from lm_eval_eglr.trl import format_reward, math_reward


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("columns", "completion", "reward"),
    [
        ({"answer": "12"}, "So \\boxed{12}.", 1.0),
        ({"answer": "12"}, "So \\boxed{13}.", 0.0),
        ({"answer": "12"}, "It is 12.", 0.0),
        ({"answer": 12}, "\\boxed{12}", 1.0),
        ({"answer": "\\frac{1}{2}"}, "\\boxed{0.5}", 1.0),
        ({"answer": "He has 3*4=12 pens.\n#### 12"}, "\\boxed{12}", 1.0),
        ({"solution": "We add: $5+7=\\boxed{12}$."}, "\\boxed{12}", 1.0),
        ({"solution": "We add: $5+7=\\boxed{12}$.", "answer": "13"}, "\\boxed{13}", 1.0),
        ({"ground_truth": "12"}, "<think>\\boxed{11}</think> \\boxed{12}", 1.0),
        ({"answer": None}, "\\boxed{12}", None),
        ({"answer": "12"}, "", 0.0),
    ],
)
def test_a_right_answer_is_worth_one(columns: dict[str, Any], completion: str, reward: float | None) -> None:
    rows = {name: [value] for name, value in columns.items()}
    assert math_reward([completion], **rows) == [reward]
    assert math_reward(completions=[said(completion)], prompts=["?"], **rows) == [reward]


def test_a_reward_belongs_to_its_row() -> None:
    texts = ["\\boxed{1}", said("\\boxed{2}"), "\\boxed{3}", "\\boxed{4}"]
    assert math_reward(texts, answer=["1", "1", None, "4"]) == [1.0, 0.0, None, 1.0]


def test_the_rules_and_the_fallbacks_can_be_set() -> None:
    strict = functools.partial(math_reward, rules=Rules(percent="strict"), fallbacks=("last_number",))
    assert strict(["\\boxed{50\\%}", "so it is 50"], answer=["50", "50"]) == [0.0, 1.0]


def test_what_cannot_be_graded_is_left_out_and_counted() -> None:
    logged: dict[str, float] = {}
    rewards = math_reward(["\\boxed{1}", "\\boxed{1}"], answer=["1", None], log_metric=logged.__setitem__)
    assert rewards == [1.0, None]
    assert logged == {"math_reward/ungraded": 0.0}, "no reference is not ungraded"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"level": ["1"]}, "expected a dataset column answer or solution"),
        ({"answer": ["1", "2"]}, "answer: expected one reference for each of 1 completions"),
        ({"answer": ["1"], "rules": ["math"]}, r"rules=\['math'\]: expected a Rules"),
    ],
)
def test_columns_that_are_not_what_they_should_be_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        math_reward(["\\boxed{1}"], **columns)


HOSTILE = [
    "\\boxed{" * 20_000,
    "{" * 50_000 + "}" * 50_000,
    "\\boxed{" + "(" * 10_000 + ")" * 10_000 + "}",
    "\\boxed{9**9**9**9}",
    "\\boxed{10^{10^{10^{10}}}}",
    "\\boxed{(1e400)!}",
    "\\boxed{__import__('os').system('touch /tmp/harm')}",
    "\\boxed{\\input{/etc/passwd}}",
    "<think>" * 5_000 + "\\boxed{12}",
    "\x00\ud800\\boxed{13\x00}",
    "\\" * 30_001,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_earns_nothing_and_stops_nothing(text: str) -> None:
    assert math_reward([text, "\\boxed{12}"], answer=["12", "12"])[1] == 1.0
    assert math_reward([text], answer=["12"]) in ([0.0], [None])
    assert format_reward([text]) in ([0.0], [1.0])


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("We add. \\boxed{12}", 1.0),
        ("\\boxed{\\frac{1}{2}}", 1.0),
        ("<think>5+7</think>\\boxed{12}", 1.0),
        ("5+7</think>\\boxed{12}", 1.0),
        ("<think>perhaps \\boxed{11}</think>\\boxed{12}", 1.0),
        ("12", 0.0),
        ("\\boxed{}", 0.0),
        ("\\boxed{ }", 0.0),
        ("\\boxed 12", 0.0),
        ("\\boxed{12", 0.0),
        ("\\boxed{11} or \\boxed{12}", 0.0),
        ("<think>\\boxed{12}</think>", 0.0),
        ("<think>\\boxed{12}", 0.0),
        ("<think>a</think><think>b</think>\\boxed{12}", 0.0),
        ("</think><think>\\boxed{12}", 0.0),
    ],
)
def test_an_answer_in_the_asked_form_is_worth_one(completion: str, reward: float) -> None:
    assert format_reward([completion]) == [reward]
    assert format_reward(completions=[said(completion)], answer=["1"]) == [reward]


def test_messages_without_text_are_empty() -> None:
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "\\boxed{1}"}, {"type": "image"}]}]
    silent = [{"role": "assistant", "content": None}]
    assert math_reward([parts, silent, []], answer=["1"] * 3) == [1.0, 0.0, 0.0]


def test_without_trl_the_trainer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "lm_eval_eglr.trl.trainer", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'lm-eval-eglr\[trl\]'"):
        _ = lm_eval_eglr.trl.PoolGRPOTrainer
