"""Pools for the tests: a grid written as answers, with telemetry where a test needs it."""

from __future__ import annotations

from collections.abc import Sequence

from eglr_selectors import Cell, ParsedPool, Rollout, RolloutPool, Telemetry


def boxed(answer: str | None) -> str:
    """A rollout's text with this final answer, or with none."""
    return "I do not know" if answer is None else rf"so it is \boxed{{{answer}}}"


def texts_pool(answers: Sequence[str | None], scores: Sequence[float] | None = None) -> RolloutPool:
    """A pool of plain texts: no telemetry, no token ids, no temperature."""
    return RolloutPool.from_texts([boxed(answer) for answer in answers], scores)


def grid_pool(
    answers: Sequence[str | None],
    spans: Sequence[int] = (0, 2),
    temperatures: Sequence[float] = (0.0, 0.7, 0.7),
    **telemetry: Sequence[float] | Sequence[tuple[float, ...]],
) -> RolloutPool:
    """A grid in grid order; telemetry fields are given as one value per rollout."""
    cells = [
        Cell(span, temperature, sum(t == temperature for t in temperatures[:column]))
        for span in spans
        for column, temperature in enumerate(temperatures)
    ]
    rollouts = [
        Rollout(
            boxed(answer),
            cell,
            "stop",
            tokens=tuple(range(i + 1)),
            telemetry=Telemetry(**{name: values[i] for name, values in telemetry.items()}),
        )
        for i, (answer, cell) in enumerate(zip(answers, cells, strict=True))
    ]
    return RolloutPool(tuple(rollouts), prompt="How many?")


def ungraded(parsed: ParsedPool, indices: set[int]) -> ParsedPool:
    """The pool as if the grader had given up on these rollouts."""
    correct = tuple(None if i in indices else c for i, c in enumerate(parsed.correct))
    return ParsedPool(parsed.pool, parsed.answers, parsed.classes, parsed.reference, "", lambda: correct)
