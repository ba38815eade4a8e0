"""What grading an answer came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Outcome = Literal["correct", "wrong", "no_answer", "ungraded"]
Path = Literal["none", "string", "number", "text", "structure", "numeric", "rule", "hazard", "math-verify"]
"""Which step decided: no answer at all, equal strings, exact numbers, words, parts compared one by one,
values at fixed points, a rule of the benchmark, the hazard filter (only equal strings count), or
math-verify."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of comparing one answer with one gold.

    Attributes:
        outcome: ``no_answer`` is a wrong answer that never came; ``ungraded`` is not known to be either:
            time or memory ran out, or the comparing process died.
        path: Which step decided.
        reason: Why, in words, short enough for a log and never quoting the answer.
    """

    outcome: Outcome
    path: Path
    reason: str = ""

    def __post_init__(self) -> None:
        for key, allowed in (("outcome", Outcome), ("path", Path)):
            if getattr(self, key) not in get_args(allowed):
                raise ValueError(
                    f"{key}={getattr(self, key)!r}: expected one of {', '.join(get_args(allowed))}"
                )

    @property
    def correct(self) -> bool | None:
        """True or False; ``None`` if ungraded."""
        return None if self.outcome == "ungraded" else self.outcome == "correct"


class UngradedError(RuntimeError):
    """Raised on request when answers could not be graded.

    Attributes:
        verdicts: The verdicts of the whole call, the ungraded ones among them.
    """

    def __init__(self, verdicts: list[Verdict]) -> None:
        ungraded = [verdict for verdict in verdicts if verdict.outcome == "ungraded"]
        reasons = ", ".join(sorted({verdict.reason for verdict in ungraded}))
        super().__init__(f"{len(ungraded)} of {len(verdicts)} answers ungraded: {reasons}")
        self.verdicts = verdicts
