"""Equivalence classes of answers, for votes over equal answers instead of equal strings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from eglr_selectors.grading.answer import Answer
from eglr_selectors.grading.checks import canonical
from eglr_selectors.grading.grade import alike
from eglr_selectors.grading.math_verify_queue import POOL_SECONDS, Pair, ask_math_verify, checked_seconds
from eglr_selectors.grading.rules import DEFAULT, Rules


@dataclass(frozen=True, slots=True)
class Partition:
    """The classes of one group of answers.

    Attributes:
        numbers: One class number per answer, by first appearance; -1 for no answer.
        undecided: How many pairs of distinct answers ran out of time or memory. They count as unequal.
    """

    numbers: list[int]
    undecided: int = 0


def classes(
    answers: Sequence[Answer | str | None], rules: Rules = DEFAULT, *, seconds: float = POOL_SECONDS
) -> list[int]:
    """Numbers the equivalence classes of answers by first appearance.

    Two answers of one class grade each other as correct, at least one way round. Equality is not transitive
    where rules are lenient (12 m, 12 and 12 cm): such an answer joins one class only, whichever comes first
    in an order of the answers that has nothing to do with their places, so classes do not depend on the
    order or on repeats.

    Args:
        answers: Answers, bare strings, or ``None`` where there is none.
        rules: What counts as equal.
        seconds: How long math-verify may be at all pairs together; what is left then counts as unequal.

    Returns:
        One number per answer; -1 for no answer. Answers that math-verify could not compare are kept apart.
    """
    return classes_many([answers], rules, seconds=seconds)[0]


def classes_many(
    groups: Iterable[Sequence[Answer | str | None]], rules: Rules = DEFAULT, *, seconds: float = POOL_SECONDS
) -> list[list[int]]:
    """Numbers the classes of many groups, asking math-verify once for all; see :func:`classes`."""
    return [partition.numbers for partition in partitions(groups, rules, seconds=seconds)]


def partitions(
    groups: Iterable[Sequence[Answer | str | None]], rules: Rules = DEFAULT, *, seconds: float = POOL_SECONDS
) -> list[Partition]:
    """Sorts many groups into classes, and counts the pairs that stay undecided; see :func:`classes`.

    Raises:
        ValueError: If ``seconds``, the limit of each group, is no number.
    """
    checked_seconds(seconds)
    found = [[answer.text if isinstance(answer, Answer) else answer for answer in group] for group in groups]
    tables = [_Table({text for text in texts if text and text.strip()}, rules) for texts in found]
    wanted: dict[Pair, list[int]] = {}
    for group, table in enumerate(tables):
        for pair in table.open_pairs:
            wanted.setdefault(pair, []).append(group)
    asked = ask_math_verify(wanted, seconds) if wanted else {}
    sorted_groups = []
    for texts, table in zip(found, tables, strict=True):
        equal = table.equal | {pair for pair in table.open_pairs if asked[pair].correct}
        undecided = sum(asked[pair].correct is None for pair in table.open_pairs)
        representatives = table.representatives(equal)
        numbers: dict[str, int] = {}
        numbered = [
            numbers.setdefault(representatives[text], len(numbers)) if text in representatives else -1
            for text in texts
        ]
        sorted_groups.append(Partition(numbered, undecided))
    return sorted_groups


class _Table:
    """The distinct answers of one group, and which pairs of them are equal or still open."""

    def __init__(self, texts: set[str], rules: Rules) -> None:
        self.key = {text: canonical(text) if len(text) <= 1500 else text for text in texts}
        by_key: dict[str, str] = {}
        for text in sorted(texts, reverse=True):
            by_key[self.key[text]] = text
        # The most particular answers come first: a bare number must not join two units together.
        self.texts = sorted(by_key.values(), key=lambda text: (-len(self.key[text]), self.key[text]))
        self.keyed = by_key
        self.equal: set[Pair] = set()
        self.open_pairs: set[Pair] = set()
        for pair in combinations(self.texts, 2):
            verdict = alike(*pair, rules)
            if verdict is None:
                self.open_pairs.add(pair)
            elif verdict.correct:
                self.equal.add(pair)

    def representatives(self, equal: set[Pair]) -> dict[str, str]:
        """Returns for each answer the first member of its class."""
        members: list[list[str]] = []
        first: dict[str, str] = {}
        for text in self.texts:
            home = next((group for group in members if all((other, text) in equal for other in group)), None)
            if home is None:
                members.append([text])
                first[text] = text
            else:
                home.append(text)
                first[text] = home[0]
        return {text: first[self.keyed[key]] for text, key in self.key.items()}
