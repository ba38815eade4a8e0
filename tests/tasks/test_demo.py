"""The demo's problems: what the generator gives, solvable as stated, and none of them seen in training."""

from __future__ import annotations

import ast
import itertools
import json
import operator
import re
from typing import Any

import pytest
from examples_of_demo import GENERATOR

from lm_eval_eglr.paths import tasks_folder

FILES = {"demo_eglr.jsonl": (500, "test"), "demo_validation.jsonl": (100, "validation")}
IN_WORDS = {"twice": "2", "half": "2", "Half": "2", "doubles": "2"}
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def rows(name: str) -> list[dict[str, Any]]:
    lines = (tasks_folder() / "demo" / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def stated(text: str) -> tuple[int, ...]:
    """The numbers that a problem states, sorted: from its words alone."""
    words = re.findall(r"\d+|[A-Za-z]+", text)
    return tuple(
        sorted(int(IN_WORDS.get(word, word)) for word in words if word in IN_WORDS or word.isdigit())
    )


def value(node: ast.AST) -> int:
    if isinstance(node, ast.Expression):
        return value(node.body)
    if isinstance(node, ast.Constant):
        return node.value
    assert isinstance(node, ast.BinOp)
    left, right = value(node.left), value(node.right)
    assert not isinstance(node.op, ast.FloorDiv) or left % right == 0
    return OPERATORS[type(node.op)](left, right)


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_what_the_generator_gives(name: str) -> None:
    count, split = FILES[name]
    generated = [GENERATOR.as_row(n, each) for n, each in enumerate(GENERATOR.held_out(count, split), 1)]
    assert rows(name) == generated


@pytest.mark.parametrize("name", FILES)
def test_answers_follow_from_the_numbers_that_are_stated(name: str) -> None:
    for row in rows(name):
        formula = row["formula"]
        assert str(value(ast.parse(formula, mode="eval"))) == row["answer"]
        assert sum(formula.replace("//", "/").count(sign) for sign in "+-*/") == row["level"]
        assert tuple(sorted(map(int, re.findall(r"\d+", formula)))) == stated(row["problem"]), row["problem"]


@pytest.mark.parametrize("name", FILES)
def test_worked_steps_are_right_and_end_in_the_answer(name: str) -> None:
    for row in rows(name):
        equations = re.findall(r"(\d+[-+*/]\d+)=(\d+)", row["solution"])
        assert len(equations) == row["level"]
        for left, right in equations:
            assert str(value(ast.parse(left.replace("/", "//"), mode="eval"))) == right
        assert row["solution"].endswith(f"The answer is \\boxed{{{row['answer']}}}.")


def test_problems_are_different_and_of_every_length() -> None:
    problems = rows("demo_eglr.jsonl")
    assert len({row["problem"] for row in problems}) == len({row["id"] for row in problems}) == 500
    assert len({stated(row["problem"]) for row in problems}) == 500
    for first in (problems, problems[:200]):
        assert {sum(row["level"] == level for row in first) for level in (2, 3, 4, 5)} == {len(first) // 4}


def test_no_problem_is_in_the_training_data_in_any_words() -> None:
    """Neither its text nor, in whatever words and whatever is asked, its numbers."""
    held_out = {name: {stated(row["problem"]) for row in rows(name)} for name in FILES}
    assert not held_out["demo_eglr.jsonl"] & held_out["demo_validation.jsonl"]
    both = held_out["demo_eglr.jsonl"] | held_out["demo_validation.jsonl"]
    # For all training data: they come from `problems("train", seed)`, which gives no other split's numbers.
    assert {GENERATOR.split_of(numbers) for numbers in held_out["demo_eglr.jsonl"]} == {"test"}
    assert {GENERATOR.split_of(numbers) for numbers in both} == {"test", "validation"}
    # And seen on a part of them, from the texts alone.
    for each in itertools.islice(GENERATOR.problems("train", 0), 5000):
        numbers = stated(each.problem)
        assert numbers == each.numbers
        assert GENERATOR.split_of(numbers) == "train"
        assert numbers not in both


def test_a_paraphrase_has_the_split_of_its_numbers_in_any_order() -> None:
    for numbers in itertools.permutations((3, 14, 7)):
        assert GENERATOR.split_of(numbers) == GENERATOR.split_of((3, 7, 14))
    shares = [GENERATOR.split_of((a, b)) for a in range(2, 60) for b in range(a, 60)]
    assert shares.count("test") > 50 < shares.count("validation")
