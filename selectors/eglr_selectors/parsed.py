"""Pools with their answers: parsed once and shared by all selectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, overload

from eglr_selectors.grading import DEFAULT, Answer, Rules, extract, grade_many, partitions
from eglr_selectors.pool import Rollout, RolloutPool


class _Grades:
    """Grades of many pools, made in one call of the grader when the first of them is asked for."""

    def __init__(
        self, references: Sequence[str | None], answers: Sequence[Sequence[Answer | None]], rules: Rules
    ):
        self._references, self._answers, self._rules = references, answers, rules
        self._verdicts: dict[tuple[str, str], bool | None] | None = None

    def of_pool(self, position: int) -> tuple[bool | None, ...]:
        reference = self._references[position]
        if reference is None:
            return (None,) * len(self._answers[position])
        if self._verdicts is None:
            self._verdicts = self._grade()
        # No answer solves nothing, but `answers` still tells it from a wrong one.
        return tuple(a is not None and self._verdicts[reference, a.text] for a in self._answers[position])

    def _grade(self) -> dict[tuple[str, str], bool | None]:
        # Equality of answers is not transitive, so a class's representative may not speak for its
        # members against the reference: every distinct text is graded itself.
        pairs = {
            (reference, answer.text): answer
            for reference, answers in zip(self._references, self._answers, strict=True)
            if reference is not None
            for answer in answers
            if answer is not None
        }
        verdicts = grade_many([(reference, answer) for (reference, _), answer in pairs.items()], self._rules)
        return {pair: verdict.correct for pair, verdict in zip(pairs, verdicts, strict=True)}


SHOWN = 4
"""Answers that a pool's ``repr`` names."""


@dataclass(frozen=True, eq=False, repr=False)
class ParsedPool:
    """A pool of rollouts together with the answers read from them.

    It is a sequence of its rollouts, in grid order.

    Attributes:
        pool: The rollouts.
        answers: The answer read from each rollout; ``None`` where there is none.
        classes: Equivalence class of each answer, the same number for equal answers; -1 for none.
        reference: The reference answer; ``None`` if it is not known, or hidden from a selector.
        problem: The problem as stated; the pool's prompt unless the caller said otherwise.
        undecided: How many pairs of its distinct answers ran out of the grader's time; they count as unequal.
    """

    pool: RolloutPool
    answers: tuple[Answer | None, ...]
    classes: tuple[int, ...]
    reference: str | None = None
    problem: str = ""
    _graded: Callable[[], tuple[bool | None, ...]] | None = field(default=None, repr=False)
    undecided: int = 0
    _remembered: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("answers", "classes"):
            if len(getattr(self, name)) != len(self.pool):
                raise ValueError(f"{name}: {len(getattr(self, name))} values for {len(self.pool)} rollouts")

    def __len__(self) -> int:
        return len(self.pool)

    def __iter__(self) -> Iterator[Rollout]:
        return iter(self.pool)

    @overload
    def __getitem__(self, index: int) -> Rollout: ...
    @overload
    def __getitem__(self, index: tuple[int, float | None]) -> ParsedPool: ...
    @overload
    def __getitem__(self, index: tuple[int, float | None, int]) -> Rollout: ...

    def __getitem__(self, index: Any) -> Any:
        """A rollout by its place, or the rollouts of a cell by ``parsed[depth, temperature]``."""
        if isinstance(index, tuple) and len(index) == 2:
            return self.subset(self.pool.indices_of(*index))
        return self.pool[index]

    def __repr__(self) -> str:
        answers = {self.classes[i]: self.answers[i].text for i in reversed(self.answered)}  # type: ignore[union-attr]
        counts = Counter(self.classes[i] for i in self.answered).most_common()
        shown = ", ".join(f"{answers[number]} × {count}" for number, count in counts[:SHOWN])
        shown += f", {len(counts) - SHOWN} others" if len(counts) > SHOWN else ""
        reference = "" if self.reference is None else f"; reference {self.reference}"
        return f"ParsedPool({len(self)} rollouts; answers {shown or 'none'}{reference})"

    def _repr_html_(self) -> str:
        """The matrix of answers, right ones green, for notebooks."""
        texts = [None if answer is None else answer.text for answer in self.answers]
        known = self.reference is not None
        correct = self.correct if known else [None if text is None else False for text in texts]
        return self.pool.matrix_html(texts, correct, self.reference)

    @cached_property
    def correct(self) -> tuple[bool | None, ...]:
        """Whether each rollout's answer equals the reference.

        ``None`` is undefined: no reference, or the grader could not decide. A rollout without an
        answer is ``False``; :attr:`answers` tells it from one with a wrong answer.
        """
        return (None,) * len(self) if self._graded is None else self._graded()

    @cached_property
    def answered(self) -> tuple[int, ...]:
        """Indices of the rollouts that have an answer."""
        return tuple(i for i, c in enumerate(self.classes) if c >= 0)

    @cached_property
    def blind(self) -> ParsedPool:
        """The same pool without its reference: what a selector sees that is not an oracle."""
        return self if self.reference is None else replace(self, reference=None, _graded=None)

    def remember(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Returns what was computed under this key, so that selectors share dear results.

        Args:
            key: What tells the result apart from any other.
            compute: Computes it, once.
        """
        if key not in self._remembered:
            self._remembered[key] = compute()
        return self._remembered[key]

    def __getstate__(self) -> dict[str, Any]:
        # Between processes travels this pool with its grades: neither the pools that it is graded
        # together with, nor what is remembered, which may hold a loaded model.
        graded = None if self._graded is None else partial(_known, self.correct)
        return {**self.__dict__, "_graded": graded, "_remembered": {}}

    def tokens_of(self, indices: Iterable[int]) -> int | None:
        """Returns how many tokens these rollouts have, ``None`` if one of them does not know."""
        lengths = [len(self.pool.rollouts[i].tokens) for i in indices]
        return sum(lengths) if all(lengths) else None

    def subset(self, keep: Callable[[Rollout], bool] | Iterable[int]) -> ParsedPool:
        """Returns the pool of some of the rollouts; answers, classes and grades are not read again.

        Args:
            keep: Indices in the wanted order, or a predicate of a rollout.
        """
        if callable(keep):
            indices = [i for i, rollout in enumerate(self) if keep(rollout)]
        else:
            indices = [range(len(self))[i] for i in keep]
        return ParsedPool(
            replace(self.pool, rollouts=tuple(self.pool[i] for i in indices), cost=None),
            tuple(self.answers[i] for i in indices),
            tuple(self.classes[i] for i in indices),
            self.reference,
            self.problem,
            None if self.reference is None else partial(_correct_at, self, indices),
        )


def parse_pool(
    pool: RolloutPool,
    reference: str | None = None,
    rules: Rules = DEFAULT,
    fallbacks: Sequence[str] = (),
    *,
    problem: str | None = None,
) -> ParsedPool:
    """Reads the answers of a pool; :func:`parse_pools` with one pool."""
    problems = None if problem is None else [problem]
    return parse_pools([pool], [reference], rules, fallbacks, problems=problems)[0]


def parse_pools(
    pools: Sequence[RolloutPool],
    references: Sequence[str | None] | None = None,
    rules: Rules = DEFAULT,
    fallbacks: Sequence[str] = (),
    *,
    problems: Sequence[str] | None = None,
) -> list[ParsedPool]:
    """Reads the answers of many pools, with one call of the grader for all classes and, once the
    first grade is asked for, one for all grades.

    Args:
        pools: The pools.
        references: One reference answer per pool, ``None`` where there is none.
        rules: When two answers are equal.
        fallbacks: Where else to look for an answer, as in :func:`eglr_selectors.grading.extract`;
            ``last_number`` does not apply to truncated rollouts.
        problems: One problem statement per pool; their prompts by default.

    Raises:
        ValueError: If there is not one reference and one problem per pool.
    """
    golds = [None] * len(pools) if references is None else list(references)
    statements = [pool.prompt for pool in pools] if problems is None else list(problems)
    for name, values in (("references", golds), ("problems", statements)):
        if len(values) != len(pools):
            raise ValueError(f"{name}: {len(values)} values for {len(pools)} pools")
    answers = [tuple(_read_answer(rollout, fallbacks) for rollout in pool) for pool in pools]
    sorted_answers = partitions(answers, rules)
    grades = _Grades(golds, answers, rules)
    return [
        ParsedPool(
            pool,
            answers[i],
            tuple(sorted_answers[i].numbers),
            golds[i],
            statements[i],
            None if golds[i] is None else partial(grades.of_pool, i),
            sorted_answers[i].undecided,
        )
        for i, pool in enumerate(pools)
    ]


def parse_documents(
    pools: Sequence[RolloutPool],
    references: Sequence[str | None],
    rules: Sequence[Rules],
    fallbacks: Sequence[Sequence[str]],
    *,
    problems: Sequence[str],
) -> list[ParsedPool]:
    """Reads the answers of many pools that may differ in rules and fallbacks.

    Args:
        pools: One per document.
        references: Its reference answer, ``None`` where there is none.
        rules: When two of its answers are equal.
        fallbacks: Where to look for its answers.
        problems: Its problem statement.

    Raises:
        ValueError: If there are not as many of everything as there are pools.
    """
    groups: dict[tuple[Rules, tuple[str, ...]], list[int]] = {}
    for i, (_, each, names) in enumerate(zip(pools, rules, fallbacks, strict=True)):
        groups.setdefault((each, tuple(names)), []).append(i)
    parsed: dict[int, ParsedPool] = {}
    # One call of the grader for all documents under the same rules: most tasks have one set.
    for (each, names), chosen in groups.items():
        read = parse_pools(
            [pools[i] for i in chosen],
            [references[i] for i in chosen],
            each,
            names,
            problems=[problems[i] for i in chosen],
        )
        parsed.update(zip(chosen, read, strict=True))
    return [parsed[i] for i in range(len(pools))]


def _read_answer(rollout: Rollout, fallbacks: Sequence[str]) -> Answer | None:
    """The answer of one rollout. The last number of a text that was cut off is no answer."""
    if rollout.truncated:
        fallbacks = [name for name in fallbacks if name != "last_number"]
    return extract(rollout.text, fallbacks=fallbacks)


def _correct_at(parsed: ParsedPool, indices: Sequence[int]) -> tuple[bool | None, ...]:
    return tuple(parsed.correct[i] for i in indices)


def _known(correct: tuple[bool | None, ...]) -> tuple[bool | None, ...]:
    return correct
