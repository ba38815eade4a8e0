"""Every reference answer of every benchmark is read: respelt it is still correct, another's is not."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eglr_selectors import Rules, extract
from eglr_selectors.grading import grade_many

BENCHMARKS = ("math500", "gsm8k", "aime24", "aime25", "amc23", "minerva_math", "olympiadbench", "svamp")
# Pairs of neighbouring problems whose answers are equal under the benchmark's rules, reviewed.
EQUAL_NEIGHBOURS = {
    ("math500", "5", "x=5"): "the same value",
    ("minerva_math", "928", "927.5"): "within one per cent",
}
# Golds that are not correct when respelt, with the reason; at present there are none.
SPELT_ONE_WAY: dict[tuple[str, str], str] = {}


def respelt(answer: str) -> str:
    """The same answer, spelt otherwise."""
    if re.fullmatch(r"-?\d+", answer):
        return f"{answer}.0"
    if re.fullmatch(r"-?\d*\.\d+", answer):
        return f"{answer}0"
    if scientific := re.fullmatch(r"([\d.]+)e(-?\d+)", answer):
        return rf"{scientific[1]} \times 10^{{{scientific[2]}}}"
    # A comma before a digit or a thin space may part thousands.
    spaced = re.sub(r",(?![\d\\])", ",  ", answer)
    return spaced.replace(r"\frac{", r"\dfrac{").replace("+", " + ")


@pytest.fixture(params=BENCHMARKS)
def task(request: pytest.FixtureRequest, benchmarks: Path, load: Callable[..., Any]) -> tuple[str, Any]:
    return request.param, load(f"{request.param}_eglr", data_dir=str(benchmarks))


def test_golds_equal_themselves(task: tuple[str, Any]) -> None:
    name, built = task
    docs = list(built.eval_docs)
    rules = Rules.named(built.config.metadata["rules"])
    written = [extract(rf"So the answer is $\boxed{{{respelt(doc['answer'])}}}$.") for doc in docs]
    verdicts = grade_many([(doc["answer"], answer) for doc, answer in zip(docs, written, strict=True)], rules)
    failed = {
        (name, doc["id"]): f"{doc['answer']}: {verdict.reason}"
        for doc, verdict in zip(docs, verdicts, strict=True)
        if not verdict.correct
    }
    assert failed.keys() == {key for key in SPELT_ONE_WAY if key[0] == name}, failed


def test_golds_differ_from_their_neighbours(task: tuple[str, Any]) -> None:
    name, built = task
    answers = list(built.eval_docs["answer"])
    pairs = [(one, other) for one, other in itertools.pairwise(answers) if one != other]
    verdicts = grade_many(pairs, Rules.named(built.config.metadata["rules"]))
    equal = {(name, *pair) for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.correct}
    assert equal <= EQUAL_NEIGHBOURS.keys(), equal
    assert not [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.outcome == "ungraded"]
