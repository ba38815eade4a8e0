"""Models and strategies against benchmarks, in the style of a leaderboard."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from eglr_selectors.estimators import mcnemar

from lm_eval_eglr.reports.selector_rows import Identity, StrategyRow
from lm_eval_eglr.reports.tables import Table, Text

Key = tuple[str, str]
"""Model and strategy."""


UNKNOWN = Identity()
SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Significance:
    """Whether a row differs from the baseline.

    Attributes:
        kind: ``mcnemar``: exact, paired by problem; ``unpaired``: normal, from the two standard errors.
        p_value: Two-sided.
        problems: Problems that both have; 0 if they are not known one by one.
    """

    kind: Literal["mcnemar", "unpaired"]
    p_value: float
    problems: int


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """All rows, by model and strategy, with what is compared among them.

    Attributes:
        rows: By (model, strategy), then by task.
        tasks: The benchmarks, in the order in which they came.
        baseline: The row that others are tested against; ``None`` tests nothing.
    """

    rows: dict[Key, dict[str, StrategyRow]]
    tasks: tuple[str, ...]
    baseline: Key | None = None

    def average(self, key: Key) -> float:
        """Mean over all benchmarks, each counting once; NaN if one is missing."""
        values = [self.rows[key][task].value for task in self.tasks if task in self.rows[key]]
        return sum(values) / len(values) if len(values) == len(self.tasks) else math.nan

    def best(self, task: str) -> StrategyRow | None:
        """The best strategy of a benchmark that does not use the reference."""
        fair = [row[task] for row in self.rows.values() if task in row and not row[task].uses_reference]
        known = [row for row in fair if not math.isnan(row.value)]
        return max(known, key=lambda row: row.value, default=None)

    def test(self, key: Key, task: str) -> Significance | None:
        """Tests a row against the baseline; ``None`` if there is nothing that could be tested.

        McNemar's exact test on the problems that both have, where both sources know them one by one.
        Elsewhere the two means are compared by their standard errors, as if they were of different
        problems: on the same ones that test is blunt, and is marked as another.
        """
        if self.baseline is None or key == self.baseline:
            return None
        mine, theirs = self.rows[key].get(task), self.rows[self.baseline].get(task)
        if mine is None or theirs is None:
            return None
        return _paired(mine, theirs) or _unpaired(mine, theirs)


def _paired(mine: StrategyRow, theirs: StrategyRow) -> Significance | None:
    common = sorted(mine.outcomes.keys() & theirs.outcomes.keys())
    shared = [i for i in common if mine.identities.get(i, UNKNOWN).matches(theirs.identities.get(i, UNKNOWN))]
    # Outcomes without any identity are of one store each: the harness's number of the document is all.
    if all(row.identities.get(i, UNKNOWN) == UNKNOWN for i in common for row in (mine, theirs)):
        shared = common
    values = [[row.outcomes[i] for i in shared] for row in (mine, theirs)]
    if not shared or any(value not in (0, 1) and not math.isnan(value) for side in values for value in side):
        return None
    return Significance("mcnemar", mcnemar(*values).p_value, len(shared))


def _unpaired(mine: StrategyRow, theirs: StrategyRow) -> Significance | None:
    error = math.hypot(mine.stderr, theirs.stderr)
    if math.isnan(error) or error == 0 or math.isnan(mine.value - theirs.value):
        return None
    return Significance("unpaired", math.erfc(abs(mine.value - theirs.value) / error / math.sqrt(2)), 0)


def leaderboard(rows: Iterable[StrategyRow], baseline: str | None = None) -> Leaderboard:
    """Sorts rows into a leaderboard.

    Args:
        rows: Of any models, strategies and tasks.
        baseline: ``STRATEGY`` if it occurs once, else ``MODEL/STRATEGY``.

    Raises:
        ValueError: If two rows are of the same model, strategy and task, or the baseline is not there.
    """
    sorted_rows: dict[Key, dict[str, StrategyRow]] = {}
    tasks: dict[str, None] = {}
    for row in rows:
        of_key = sorted_rows.setdefault((row.model, row.strategy), {})
        if row.task in of_key:
            raise ValueError(f"{row.model} with {row.strategy} on {row.task}: given twice")
        of_key[row.task] = row
        tasks[row.task] = None
    return Leaderboard(sorted_rows, tuple(tasks), _find(list(sorted_rows), baseline))


def _find(keys: Sequence[Key], baseline: str | None) -> Key | None:
    if baseline is None:
        return None
    found = [key for key in keys if baseline in (key[1], "/".join(key))]
    if len(found) != 1:
        names = ", ".join("/".join(key) for key in keys)
        raise ValueError(f"baseline={baseline!r}: {len(found)} rows are called so; expected one of {names}")
    return found[0]


def leaderboard_table(board: Leaderboard) -> Table:
    """Returns the table: percent with half the interval's width, then the average and the cost."""
    averages = {key: board.average(key) for key in board.rows}
    fair = [key for key, row in board.rows.items() if not _is_oracle(row)]
    best_average = max((averages[key] for key in fair if not math.isnan(averages[key])), default=math.nan)
    lines = []
    for key, row in board.rows.items():
        name = f"{key[1]} (uses reference)" if _is_oracle(row) else key[1]
        cells = [Text(key[0]), Text(name)]
        cells += [_cell(board, key, task) for task in board.tasks]
        cells.append(Text(percent(averages[key]), averages[key] == best_average and key in fair))
        cells += [Text(_mean_of(row, name)) for name in ("rollouts", "tokens", "flops")]
        lines.append(tuple(cells))
    header = ("model", "strategy", *board.tasks, "average", "rollouts", "tokens", "FLOPs")
    notes = [
        "percent correct ± half the 95 % interval; bold: best without the reference; ≈: its interval "
        "reaches the best"
    ]
    notes += _test_notes(board)
    return Table(header, tuple(lines), 2, tuple(notes))


def _test_notes(board: Leaderboard) -> list[str]:
    if board.baseline is None:
        return []
    kinds: dict[str, list[Key]] = {}
    for key, row in board.rows.items():
        for task in row:
            test = board.test(key, task)
            kinds.setdefault("none" if test is None else test.kind, []).append(key)
    name = "/".join(board.baseline)
    notes = []
    if "mcnemar" in kinds:
        notes.append(f"* differs from {name}, McNemar's exact test on the same problems, p < {SIGNIFICANT}")
    if "unpaired" in kinds:
        rows = ", ".join(dict.fromkeys("/".join(key) for key in kinds["unpaired"]))
        notes.append(
            f"† differs from {name} by the standard errors alone, p < {SIGNIFICANT}: outcomes by problem are "
            f"not known of both for {rows} (lm_eval --log_samples writes them beside the results)"
        )
    untested = [key for key in dict.fromkeys(kinds.get("none", [])) if key != board.baseline]
    if untested:
        notes.append(f"not tested on every benchmark: {', '.join('/'.join(key) for key in untested)}")
    return notes


def _is_oracle(row: dict[str, StrategyRow]) -> bool:
    return any(each.uses_reference for each in row.values())


def _cell(board: Leaderboard, key: Key, task: str) -> Text:
    row = board.rows[key].get(task)
    if row is None:
        return Text("–")
    best = board.best(task)
    is_best = best is not None and row.value == best.value and not row.uses_reference
    tied = best is not None and not is_best and not row.uses_reference and row.high >= best.value
    test = board.test(key, task)
    marks = ("≈" if tied else "") + _mark(test)
    half = "" if math.isnan(row.high) else f" ± {50 * (row.high - row.low):.1f}"
    undefined = f" ({row.undefined} undefined)" if row.undefined else ""
    return Text(f"{percent(row.value)}{half}{marks}{undefined}", is_best)


def _mark(test: Significance | None) -> str:
    if test is None or not test.p_value < SIGNIFICANT:
        return ""
    return "*" if test.kind == "mcnemar" else "†"


def _mean_of(row: dict[str, StrategyRow], name: str) -> str:
    values = [getattr(each, name) for each in row.values()]
    average = sum(values) / len(values)
    if math.isnan(average):
        return "–"
    return f"{average:.2e}" if name == "flops" else f"{average:.4g}" if average < 1000 else f"{average:.0f}"


def percent(value: float) -> str:
    """A share in percent with one decimal; a dash if it is undefined."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"
