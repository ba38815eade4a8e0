"""Arithmetic word problems with worked steps: two to five operations, the same for the same seed.

    python examples/demo_model/word_problems.py > tasks/demo/demo_eglr.jsonl
    python examples/demo_model/word_problems.py validation 100 > tasks/demo/demo_validation.jsonl

write the 500 problems of the task ``demo_eglr`` and the first 100 of the validation problems.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from stories import HE, HOLDERS, SHE, THINGS, WORLDS, Part, World

Split = Literal["train", "validation", "test"]
SHARES = 16
"""One sixteenth of all sets of numbers is for testing, one for validation, the rest for training."""
OPERATIONS = (2, 3, 4, 5)
LARGEST = 300
HELD_OUT = 500
SEED = 2026


@dataclass(frozen=True, slots=True)
class WordProblem:
    """A problem with its worked solution.

    Attributes:
        problem: The text.
        solution: The worked steps; they end in ``\\boxed{answer}``.
        answer: The number that is asked for.
        formula: How it follows from the numbers, an arithmetic expression.
        numbers: The numbers of the formula, sorted; paraphrases with the same numbers have the same.
        operations: Number of operations in the formula.
        world: What the story is about.
    """

    problem: str
    solution: str
    answer: int
    formula: str
    numbers: tuple[int, ...]
    operations: int
    world: str


@dataclass(frozen=True, slots=True)
class Equation:
    """One operation that is worked out."""

    left: int
    sign: str
    right: int

    @property
    def result(self) -> int:
        """The number after the equals sign."""
        return {
            "+": self.left + self.right,
            "-": self.left - self.right,
            "*": self.left * self.right,
            "/": self.left // self.right,
        }[self.sign]

    @property
    def fits(self) -> bool:
        """Whether the result is a whole number of the wanted size."""
        return 1 < self.result <= LARGEST and not (self.sign == "/" and self.left % self.right)

    def __str__(self) -> str:
        return f"{self.left}{self.sign}{self.right}={self.result}"


@dataclass(frozen=True, slots=True)
class Turn:
    """A part of a story with its numbers, and the quantity v before it."""

    part: Part
    a: int
    b: int
    v: int

    @property
    def equations(self) -> list[Equation]:
        """The operations of the part, in the order in which they are worked out."""
        change = self.part.change
        if change in ("a", "v"):
            return []
        value = {"a": self.a, "b": self.b, "v": self.v}
        first, sign, second = change[0], change[1], change[2:]
        if second == "a*b":
            product = Equation(self.a, "*", self.b)
            return [product, Equation(self.v, sign, product.result)]
        return [Equation(value[first], sign, value[second])]

    @property
    def after(self) -> int:
        """The quantity after it."""
        return ([self.a if self.part.change == "a" else self.v] + [e.result for e in self.equations])[-1]

    @property
    def numbers(self) -> list[int]:
        """The numbers that it brings in."""
        return [number for name, number in (("a", self.a), ("b", self.b)) if name in self.part.change]


def split_of(numbers: Sequence[int]) -> Split:
    """Says where all problems with these numbers belong, whatever they ask, in whatever words and order."""
    digest = hashlib.blake2b(repr(sorted(numbers)).encode(), digest_size=8).digest()
    return {0: "test", 1: "validation"}.get(int.from_bytes(digest, "big") % SHARES, "train")  # type: ignore[return-value]


def problems(split: Split, seed: int) -> Iterator[WordProblem]:
    """Yields problems of a split for ever, operations in turn from 2 to 5; equal numbers may come again."""
    rng = random.Random(f"{split} {seed}")
    while True:
        for operations in OPERATIONS:
            while True:
                world = rng.choice(WORLDS)
                turns = _draw_numbers(rng, _draw_plot(rng, world, operations))
                if turns and split_of([number for turn in turns for number in turn.numbers]) == split:
                    break
            yield _tell(rng, world, turns, operations)


def held_out(count: int = HELD_OUT, split: Split = "test", seed: int = SEED) -> list[WordProblem]:
    """Returns the first problems of a split, no two of them with the same numbers."""
    chosen: dict[tuple[int, ...], WordProblem] = {}
    stream = problems(split, seed)
    while len(chosen) < count:
        each = next(stream)
        if each.operations == OPERATIONS[len(chosen) % len(OPERATIONS)]:
            chosen.setdefault(each.numbers, each)
    return list(chosen.values())


def _draw_plot(rng: random.Random, world: World, operations: int) -> list[Part]:
    """Chooses an opening, events and a question that take so many operations together."""
    while True:
        opening, question = rng.choice(world.openings), rng.choice(world.questions)
        left = operations - opening.operations - question.operations
        events: list[Part] = []
        while left > 0:
            events.append(rng.choice(world.events))
            left -= events[-1].operations
        if left == 0:
            return [opening, *events, question]


def _draw_numbers(rng: random.Random, plot: Sequence[Part]) -> list[Turn]:
    """Gives every part its numbers; nothing if they do not fit."""
    turns: list[Turn] = []
    value = 0
    for part in plot:
        turn = Turn(part, *_numbers(rng, part, value), value)
        if not all(equation.fits for equation in turn.equations):
            return []
        turns.append(turn)
        value = turn.after
    return turns


def _numbers(rng: random.Random, part: Part, v: int) -> tuple[int, int]:
    """Draws a and b for a part; they need not fit."""
    draw = rng.randint
    if part.change in ("v+a*b", "v-a*b"):
        return draw(2, 9), draw(2, 12)
    if part.change == "a*b":
        return (draw(2, 60), part.fixed) if part.fixed else (draw(2, 12), draw(2, 12))
    if part.change == "v/a":
        return part.fixed or rng.choice([a for a in range(2, 10) if v % a == 0] or [9]), 0
    if part.change == "v*a":
        return part.fixed or draw(2, 9), 0
    if part.change == "a-v":
        return v + draw(2, 80), 0
    return draw(2, 90), draw(2, 90)


def _tell(rng: random.Random, world: World, turns: Sequence[Turn], operations: int) -> WordProblem:
    """Puts the parts into words."""
    persons, others = rng.sample([SHE, HE], 2)  # so that a pronoun can only mean the first person
    holder, holders = rng.choice(HOLDERS)
    second, third = rng.sample(others, 2)
    words = {"P": rng.choice(persons), "Q": second, "R": third, "O": rng.choice(THINGS)}
    words |= {"S": "She", "s": "she"} if persons is SHE else {"S": "He", "s": "he"}
    words |= {"C": holder, "Cs": holders}
    sentences, steps, formula = [], [], ""
    for turn in turns:
        sentences.append(rng.choice(turn.part.wordings).format(a=turn.a, b=turn.b, **words))
        for lead, equation in zip(turn.part.working, turn.equations, strict=True):
            steps.append(f"{lead.format(**words)} {equation}.")
        change = turn.part.change.replace("/", "//").replace("v", f"({formula})")
        formula = change.replace("a", str(turn.a)).replace("b", str(turn.b))
    answer = turns[-1].after
    return WordProblem(
        " ".join(sentences),
        " ".join([*steps, f"The answer is \\boxed{{{answer}}}."]),
        answer,
        formula,
        tuple(sorted(number for turn in turns for number in turn.numbers)),
        operations,
        world.name,
    )


def as_row(number: int, each: WordProblem) -> dict[str, str | int]:
    """Returns the line of the task's file."""
    return {
        "id": f"demo-{number:03}",
        "problem": each.problem,
        "answer": str(each.answer),
        "solution": each.solution,
        "subject": each.world,
        "level": each.operations,
        "formula": each.formula,
    }


if __name__ == "__main__":
    split, count = sys.argv[1:] or ("test", HELD_OUT)
    for number, each in enumerate(held_out(int(count), split), 1):  # type: ignore[arg-type]
        print(json.dumps(as_row(number, each)))
