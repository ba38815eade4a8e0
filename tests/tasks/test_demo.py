"""The demo's problems: shipped with the task, and every answer follows from its formula."""

from __future__ import annotations

import ast
import json
import operator
import re

import pytest

from lm_eval_eglr.harness import tasks_folder

LINES = (tasks_folder() / "demo" / "demo_eglr.jsonl").read_text(encoding="utf-8").splitlines()
PROBLEMS = [json.loads(line) for line in LINES]
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def value(node: ast.AST) -> int:
    if isinstance(node, ast.Expression):
        return value(node.body)
    if isinstance(node, ast.Constant):
        return node.value
    assert isinstance(node, ast.BinOp)
    left, right = value(node.left), value(node.right)
    assert not isinstance(node.op, ast.FloorDiv) or left % right == 0
    return OPERATORS[type(node.op)](left, right)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem["id"])
def test_answer_follows_from_the_numbers_of_the_problem(problem: dict[str, str]) -> None:
    assert str(value(ast.parse(problem["formula"], mode="eval"))) == problem["answer"]
    stated = set(re.findall(r"\d+", problem["problem"]))
    in_words = {"2", "3", "5"}  # half, three friends, Monday to Friday, both sides of a rectangle
    assert set(re.findall(r"\d+", problem["formula"])) <= stated | in_words


def test_twenty_different_problems() -> None:
    assert len(PROBLEMS) == len({problem["problem"] for problem in PROBLEMS}) == 20
    assert len({problem["id"] for problem in PROBLEMS}) == 20
