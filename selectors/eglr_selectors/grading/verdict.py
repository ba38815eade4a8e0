"""What grading an answer came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

from eglr_selectors.grading.rules import Rules

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
        pair: The gold, the answer and the rules that it was graded by, if :func:`.grade` or
            :func:`.grade_many` gave it; two verdicts are equal whatever they are about.
    """

    outcome: Outcome
    path: Path
    reason: str = ""
    pair: tuple[str, str | None, Rules] | None = field(default=None, compare=False, repr=False)

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

    def told(self, gold: str, answer: str | None, rules: Rules) -> Verdict:
        """Returns this verdict with what it is about."""
        # Past the checks of __init__, which this verdict has passed: they would take most of the time.
        verdict = object.__new__(Verdict)
        _SET_OUTCOME(verdict, self.outcome)
        _SET_PATH(verdict, self.path)
        _SET_REASON(verdict, self.reason)
        _SET_PAIR(verdict, (gold, answer, rules))
        return verdict

    def explain(self) -> Explanation:
        """Returns how both sides were read, which check decided, and why; ``print()`` shows it.

        Raises:
            ValueError: If the verdict does not know what it is about, as one made by hand or from a cache.
        """
        if self.pair is None:
            raise ValueError("this verdict knows no gold and answer: ask explain(gold, answer, rules)")
        gold, answer, rules = self.pair
        return _explainers[0](gold, answer, rules, self)


_SET_OUTCOME, _SET_PATH, _SET_REASON, _SET_PAIR = (
    vars(Verdict)[name].__set__ for name in ("outcome", "path", "reason", "pair")
)


_SHOWN = 200


def shortened(text: str) -> str:
    """Returns a text that can be printed, cut if it is long."""
    shown = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}... ({len(shown)} characters)"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that led to a verdict; ``str()`` prints it.

    Attributes:
        verdict: The verdict.
        gold: The gold: as given, normalized, and what it says.
        answer: The answer, likewise; three empty texts for none.
        comparison: The row of ``COMPARISONS`` that has both kinds.
        steps: Each check that was made, and what it said.
        rules: The rules that are not the default.
    """

    verdict: Verdict
    gold: tuple[str, str, str]
    answer: tuple[str, str, str]
    comparison: str
    steps: tuple[tuple[str, str], ...]
    rules: str

    def __str__(self) -> str:
        lines = [f"{self.verdict.outcome}: {self.verdict.reason} (decided by {self.verdict.path})"]
        for name, (given, normalized, said) in (("gold", self.gold), ("answer", self.answer)):
            lines.append(f"{name:<11}{shortened(given)}")
            if normalized != given:
                lines.append(f"{'':<11}normalized: {shortened(normalized)}")
            lines.append(f"{'':<11}read as: {said or 'nothing'}")
        lines.append(f"{'compared':<11}{self.comparison}")
        lines.append(f"{'rules':<11}{self.rules or 'math (the default)'}")
        lines += [
            f"{'checks' if not place else '':<11}{name}: {said}"
            for place, (name, said) in enumerate(self.steps)
        ]
        return "\n".join(lines)


Explain = Callable[[str, "str | None", Rules, "Verdict | None"], Explanation]
_explainers: list[Explain] = []


def explain_by(explain: Explain) -> None:
    """Says what explains a verdict: the file that does imports all checks, which import this one."""
    _explainers[:] = [explain]


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
