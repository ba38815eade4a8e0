"""The golds of every benchmark file: equal to themselves, also written otherwise, and to no other gold."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from case_files import read_rows
from eglr_selectors.grading import DEFAULT, Rules, extract, grade_many
from one_change import changes
from respellings import exact, respellings

PRESETS = {
    "math500": "math",
    "gsm8k": "integer",
    "aime24": "integer",
    "aime25": "integer",
    "amc23": "math",
    "minerva_math": "quantity",
    "olympiadbench": "olympiad",
    "svamp": "number",
}
FILES = list(PRESETS)


def golds(shared: Path, name: str) -> list[str]:
    path = shared / "benchmarks" / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"no {name} in the shared data")
    return [str(row["answer"]) for row in read_rows(path)]


@pytest.mark.parametrize("name", FILES)
def test_golds_equal_themselves_however_written(shared: Path, name: str) -> None:
    pairs = [(gold, text) for gold in golds(shared, name) for text in (gold, *respellings(gold))]
    for rules in (DEFAULT, Rules.named(PRESETS[name])):
        verdicts = grade_many(pairs, rules)
        assert not [pair for pair, verdict in zip(pairs, verdicts, strict=True) if not verdict.correct]


@pytest.mark.parametrize("name", FILES)
def test_golds_equal_their_own_box(shared: Path, name: str) -> None:
    pairs = [(gold, extract(rf"So $\boxed{{{gold}}}$.")) for gold in golds(shared, name)]
    wrong = [pair for pair, v in zip(pairs, grade_many(pairs), strict=True) if not v.correct]
    assert not wrong


def test_golds_are_unequal_to_themselves_with_one_change(shared: Path) -> None:
    """One symbol, word, sign or digit changed: no random pair of golds is that close."""
    distinct = sorted({gold for name in FILES for gold in golds(shared, name)})
    chance = random.Random(4)
    changed = [(gold, other) for gold in distinct for _, other in changes(gold, chance)]
    pairs = chance.sample(changed, 2000)
    accepted = [pair for pair, verdict in zip(pairs, grade_many(pairs), strict=True) if verdict.correct]
    assert not accepted


def test_golds_are_unequal_to_other_golds(shared: Path) -> None:
    distinct = sorted({gold for name in FILES for gold in golds(shared, name)})
    chance = random.Random(0)
    pairs = [tuple(chance.sample(distinct, 2)) for _ in range(5000)]
    # Integers are easy: as many pairs again of all the others.
    others = [gold for gold in distinct if not gold.lstrip("-").isdigit()]
    pairs += [tuple(chance.sample(others, 2)) for _ in range(5000)]
    accepted = [pair for pair, v in zip(pairs, grade_many(pairs), strict=True) if v.outcome != "wrong"]
    assert all(
        (exact(one) is not None and exact(one) == exact(other))
        or one.replace(" ", "") == other.replace(" ", "")
        for one, other in accepted
    ), accepted
