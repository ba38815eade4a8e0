"""Strategies of models against benchmarks: the best of them, and which differ from a baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

from eglr_selectors.estimators import holm, mcnemar

from lm_eval_eglr.reports.selector_rows import Identity, StrategyRow, mean_stderr

UNKNOWN = Identity()
SIGNIFICANT = 0.05


class Key(NamedTuple):
    """Whose row it is.

    Attributes:
        store: The store or results file that it was read from.
        model: The model.
        strategy: The strategy.
    """

    store: str
    model: str
    strategy: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.store or self.model, self.strategy) if part)


@dataclass(frozen=True, slots=True)
class Significance:
    """Whether a row differs from the baseline.

    Attributes:
        kind: ``mcnemar``: exact, paired by problem; ``paired``: normal, from the differences by problem of
            figures that are no 0 and 1; ``unpaired``: normal, from the two standard errors.
        p_value: Two-sided.
        problems: Problems that both have; 0 if they are not known one by one.
        against: The row that it was tested against.
        adjusted: The p-value corrected for the number of tests of the table (Holm 1979).
    """

    kind: Literal["mcnemar", "paired", "unpaired"]
    p_value: float
    problems: int
    against: Key
    adjusted: float = math.nan


@dataclass(frozen=True, slots=True)
class Baseline:
    """What rows are tested against.

    Attributes:
        name: How it is called.
        row_for: The row that another is tested against; ``None`` if there is none.
    """

    name: str
    row_for: Callable[[Key], Key | None]


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """All rows, by store, model and strategy, with what is compared among them.

    Attributes:
        rows: By key, then by task.
        tasks: The benchmarks, in the order in which they came.
        baseline: What rows are tested against; ``None`` tests nothing.
        tests: The tests by row and task.
    """

    rows: dict[Key, dict[str, StrategyRow]]
    tasks: tuple[str, ...]
    baseline: Baseline | None = None
    tests: dict[tuple[Key, str], Significance] = field(default_factory=dict)

    def average(self, key: Key) -> float:
        """Mean over all benchmarks, each counting once; NaN if one is missing."""
        values = [self.rows[key][task].value for task in self.tasks if task in self.rows[key]]
        return sum(values) / len(values) if len(values) == len(self.tasks) else math.nan

    def best(self, task: str) -> StrategyRow | None:
        """The best strategy of a benchmark that does not use the reference."""
        fair = [row[task] for row in self.rows.values() if task in row and not row[task].uses_reference]
        known = [row for row in fair if not math.isnan(row.value)]
        return max(known, key=lambda row: row.value, default=None)

    def is_oracle(self, key: Key) -> bool:
        """Whether a row uses the reference on any benchmark."""
        return any(row.uses_reference for row in self.rows[key].values())

    def test(self, key: Key, task: str) -> Significance | None:
        """The test of a row against the baseline; ``None`` if there is nothing that could be tested."""
        return self.tests.get((key, task))

    def ranked(self) -> list[Key]:
        """All rows: strategies first, then oracles, the best first; figures of several k stay together.

        Rows of other benchmarks than the first come after its own.
        """
        order = {key: number for number, key in enumerate(self.rows)}
        groups: dict[tuple[str, str, str], list[Key]] = {}
        for key in self.rows:
            groups.setdefault((key.store, key.model, key.strategy.partition("@")[0]), []).append(key)
        best = {key: max(map(self._mean, group)) for group in groups.values() for key in group}
        first = {key: min(order[other] for other in group) for group in groups.values() for key in group}

        def rank(key: Key) -> tuple[bool, int, float, int, int, int]:
            size = key.strategy.partition("@")[2]
            return (
                self.is_oracle(key),
                min(self.tasks.index(task) for task in self.rows[key]),
                -best[key],
                first[key],
                int(size) if size.isdecimal() else 0,
                order[key],
            )

        return sorted(self.rows, key=rank)

    def _mean(self, key: Key) -> float:
        values = [row.value for row in self.rows[key].values() if not math.isnan(row.value)]
        return sum(values) / len(values) if values else -math.inf


def leaderboard(
    rows: Iterable[StrategyRow], baseline: str | None = None, sources: Mapping[str, PurePath] | None = None
) -> Leaderboard:
    """Sorts rows into a leaderboard.

    Args:
        rows: Of any models, strategies and tasks.
        baseline: What rows are tested against, see :func:`find_baseline`; by default nothing.
        sources: Paths of the stores and results files, by their names in the rows.

    Raises:
        ValueError: If two rows are of the same store, model, strategy and task, or the baseline is not there.
    """
    by_key: dict[Key, dict[str, StrategyRow]] = {}
    tasks: dict[str, None] = {}
    for row in rows:
        of_key = by_key.setdefault(Key(row.store, row.model, row.strategy), {})
        if row.task in of_key:
            raise ValueError(f"{row.model} with {row.strategy} on {row.task}: given twice")
        of_key[row.task] = row
        tasks[row.task] = None
    found = find_baseline(by_key, baseline, sources or {})
    return Leaderboard(by_key, tuple(tasks), found, {} if found is None else _tests(by_key, found))


def find_baseline(
    rows: Mapping[Key, Mapping[str, StrategyRow]], text: str | None, sources: Mapping[str, PurePath]
) -> Baseline | None:
    """Finds what rows are tested against.

    Args:
        rows: All rows.
        text: A store or results file (its path, or a part of the end of it that no other has), whose row of
            the same strategy is the baseline of each other; or ``STRATEGY``, of the first source that has it;
            or ``STORE/STRATEGY`` or ``MODEL/STRATEGY``. ``None`` tests nothing.
        sources: Paths by the names in the rows.

    Raises:
        ValueError: If the text names nothing or several things.
    """
    if text is None:
        return None
    stores = list(dict.fromkeys(key.store for key in rows))
    named = [name for name in stores if _is_called(text, name, sources.get(name))]
    if len(named) == 1:
        return _source(rows, named[0])
    found = [key for key in rows if text == key.strategy][:1]
    found = found or [
        key
        for key in rows
        if text.endswith(f"/{key.strategy}")
        and (
            text.removesuffix(f"/{key.strategy}") == key.model
            or _is_called(text.removesuffix(f"/{key.strategy}"), key.store, sources.get(key.store))
        )
    ]
    if len(named) > 1 or len(found) != 1:
        names = ", ".join([*filter(None, stores), *dict.fromkeys(key.strategy for key in rows)])
        count = len(named) or len(found)
        raise ValueError(f"baseline={text!r}: {count or 'no'} rows are called so; expected one of {names}")
    only = found[0]
    return Baseline(str(only), lambda key: only if key != only else None)


def _is_called(text: str, name: str, path: PurePath | None) -> bool:
    parts = PurePath(text).parts
    names = [PurePath(name).parts] + ([] if path is None else [path.parts, path.with_suffix("").parts])
    return bool(name) and bool(parts) and any(each[-len(parts) :] == parts for each in names)


def _source(rows: Mapping[Key, Mapping[str, StrategyRow]], store: str) -> Baseline:
    """A whole source as the baseline: row for row of the same strategy, or its only row for all."""
    there = {key.strategy: key for key in rows if key.store == store}

    def row_for(key: Key) -> Key | None:
        if key.store == store:
            return None
        return there.get(key.strategy) or (next(iter(there.values())) if len(there) == 1 else None)

    return Baseline(store, row_for)


def _tests(
    rows: Mapping[Key, Mapping[str, StrategyRow]], baseline: Baseline
) -> dict[tuple[Key, str], Significance]:
    """Tests every row against the baseline, and corrects for how many tests that were.

    McNemar's exact test on the problems that both have, where both sources know them one by one.
    Elsewhere the two means are compared by their standard errors, as if they were of different
    problems: on the same ones that test is blunt, and is marked as another. An oracle is a ceiling and
    no strategy, so it is tested against an oracle only, and one of as many rollouts.
    """
    tests = {}
    for key, of_key in rows.items():
        against = baseline.row_for(key)
        for task, mine in of_key.items():
            theirs = None if against is None else rows[against].get(task)
            if against is None or theirs is None or mine.uses_reference != theirs.uses_reference:
                continue
            if mine.uses_reference and mine.rollouts != theirs.rollouts:
                continue
            test = _paired(mine, theirs, against) or _unpaired(mine, theirs, against)
            if test is not None:
                tests[key, task] = test
    adjusted = holm([test.p_value for test in tests.values()])
    return {
        place: replace(test, adjusted=p) for (place, test), p in zip(tests.items(), adjusted, strict=True)
    }


def _paired(mine: StrategyRow, theirs: StrategyRow, against: Key) -> Significance | None:
    common = sorted(mine.outcomes.keys() & theirs.outcomes.keys())
    shared = [i for i in common if mine.identities.get(i, UNKNOWN).matches(theirs.identities.get(i, UNKNOWN))]
    # Outcomes without any identity are of one store each: the harness's number of the document is all.
    if all(row.identities.get(i, UNKNOWN) == UNKNOWN for i in common for row in (mine, theirs)):
        shared = common
    values = [[row.outcomes[i] for i in shared] for row in (mine, theirs)]
    if not shared:
        return None
    if any(value not in (0, 1) and not math.isnan(value) for side in values for value in side):
        return _by_differences(values[0], values[1], against)
    return Significance("mcnemar", mcnemar(*values).p_value, len(shared), against)


def _by_differences(mine: Sequence[float], theirs: Sequence[float], against: Key) -> Significance | None:
    differences = [a - b for a, b in zip(mine, theirs, strict=True) if not math.isnan(a - b)]
    error = mean_stderr(differences)
    if math.isnan(error):
        return None
    centre = abs(math.fsum(differences)) / len(differences)
    p_value = math.erfc(centre / error / math.sqrt(2)) if error else float(centre == 0)
    return Significance("paired", p_value, len(differences), against)


def _unpaired(mine: StrategyRow, theirs: StrategyRow, against: Key) -> Significance | None:
    error = math.hypot(mine.stderr, theirs.stderr)
    if math.isnan(error) or error == 0 or math.isnan(mine.value - theirs.value):
        return None
    p_value = math.erfc(abs(mine.value - theirs.value) / error / math.sqrt(2))
    return Significance("unpaired", p_value, 0, against)


def records(board: Leaderboard) -> list[dict[str, Any]]:
    """Returns every row of a leaderboard with all that is known of it, for JSON and CSV."""
    found = []
    for key in board.ranked():
        for task, row in board.rows[key].items():
            test, best = board.test(key, task), board.best(task)
            columns = {name: value for name, value in asdict(row).items() if name not in HIDDEN}
            found.append(
                {
                    **{name: columns.pop(name) for name in ("store", "model", "task", "strategy")},
                    **columns,
                    "average": board.average(key),
                    "best": best is not None and best.value == row.value and not row.uses_reference,
                    "baseline": None if test is None else str(test.against),
                    "p_value": None if test is None else test.p_value,
                    "p_value_holm": None if test is None else test.adjusted,
                    "test": None if test is None else test.kind,
                    "test_problems": None if test is None else test.problems,
                }
            )
    return found


HIDDEN = ("outcomes", "identities")
"""What a row knows problem by problem."""


def percent(value: float) -> str:
    """A share in percent with one decimal; a dash if it is undefined."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"
