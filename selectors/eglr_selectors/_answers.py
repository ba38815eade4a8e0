"""Stand-in for the grader until it is merged: exact text of the last boxed answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    origin: str = "boxed"


@dataclass(frozen=True, slots=True)
class Verdict:
    correct: bool | None
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    pass


def extract(text: str, *, fallbacks: Sequence[str] = ()) -> Answer | None:
    found = re.findall(r"\\boxed\{([^{}]*)\}", text)
    return Answer(found[-1].strip()) if found else None


def grade_many(pairs: Sequence[tuple[str, Answer | None]], rules: Rules) -> list[Verdict]:
    return [Verdict(answer is not None and answer.text == gold) for gold, answer in pairs]


def classes_many(pools: Sequence[Sequence[Answer | None]], rules: Rules) -> list[list[int]]:
    out = []
    for answers in pools:
        seen: dict[str, int] = {}
        out.append([-1 if a is None else seen.setdefault(a.text, len(seen)) for a in answers])
    return out
