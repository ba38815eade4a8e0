"""A leaderboard as a table that fits a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lm_eval_eglr.reports.leaderboard import SIGNIFICANT, Key, Leaderboard, Significance, percent
from lm_eval_eglr.reports.selector_rows import StrategyRow
from lm_eval_eglr.reports.tables import Table, Text

ORACLE = "†"
UNPAIRED = "‡"
METHODS = {"mcnemar": "McNemar", "paired": "paired differences", "unpaired": "standard errors alone"}
UNITS = ((1e15, "PFLOPs"), (1e12, "TFLOPs"), (1e9, "GFLOPs"), (1e6, "MFLOPs"), (1.0, "FLOPs"))


def leaderboard_table(board: Leaderboard) -> Table:
    """Returns the table: percent with its 95 % interval, and the mean cost per problem.

    What all rows share (store, model, benchmark, number of problems) stands above it. Strategies are sorted
    by their mean, oracles stand below a line.
    """
    keys = board.ranked()
    all_rows = [row for key in keys for row in board.rows[key].values()]
    names = {
        name: [getattr(key, name) for key in keys]
        for name in ("store", "model")
        if len({getattr(key, name) for key in keys}) > 1
    }
    several = len(board.tasks) > 1
    averaged = several and not all(math.isnan(board.average(key)) for key in keys)
    scale, unit = flops_unit([row.flops for row in all_rows])
    header = [*names, "strategy", *(board.tasks if several else ("% correct",))]
    header += ["average"] if averaged else []
    first_cost = len(header)
    header += ["rollouts", "tokens", unit]
    best_average = max((board.average(k) for k in keys if not board.is_oracle(k)), default=math.nan, key=_low)
    lines = []
    for number, key in enumerate(keys):
        cells = [Text(names[name][number]) for name in names]
        cells.append(Text(key.strategy + ORACLE * board.is_oracle(key)))
        cells += [_cell(board, key, task) for task in board.tasks]
        if averaged:
            average = board.average(key)
            cells.append(Text(percent(average), average == best_average and not board.is_oracle(key)))
        row = board.rows[key]
        cells += [
            Text(_count(_mean(row, "rollouts"))),
            Text(_count(_mean(row, "tokens"))),
            Text(significant(_mean(row, "flops") / scale)),
        ]
        lines.append(tuple(cells))
    oracles = sum(map(board.is_oracle, keys))
    table = Table(
        header=tuple(header),
        rows=tuple(lines),
        labels=len(names) + 1,
        notes=tuple(_notes(board, oracles > 0)),
        title=_title(all_rows),
        rules=(len(keys) - oracles,) if 0 < oracles < len(keys) else (),
        optional=(first_cost + 1, first_cost + 2, first_cost, *((first_cost - 1,) if averaged else ())),
    )
    costs = range(first_cost, first_cost + 3)
    return table.without([column for column in costs if all(row[column].text == "–" for row in lines)])


def flops_unit(values: Sequence[float]) -> tuple[float, str]:
    """Returns the unit in which the largest of these figures has one to three digits, with its size."""
    largest = max((value for value in values if not math.isnan(value)), default=0.0)
    return next((unit for unit in UNITS if largest >= unit[0]), UNITS[-1])


def with_interval(value: float, low: float, high: float) -> str:
    """A share in percent with its 95 % interval: ``58.0 [51–65]``."""
    if math.isnan(low) or math.isnan(high):
        return percent(value)
    return f"{percent(value)} [{max(0.0, 100 * low):.0f}–{min(100.0, 100 * high):.0f}]"


def _title(rows: Sequence[StrategyRow]) -> str:
    """What all rows have in common."""
    parts = []
    for values in ([row.model for row in rows], [row.task for row in rows], [row.store for row in rows]):
        if len(set(values)) == 1 and values[0] and values[0] not in parts:
            parts.append(values[0])
    problems = {row.problems for row in rows}
    if len(problems) == 1 and min(problems):
        parts.append(f"{min(problems)} problems")
    return " · ".join(parts)


def _cell(board: Leaderboard, key: Key, task: str) -> Text:
    row = board.rows[key].get(task)
    if row is None:
        return Text("–")
    if row.undefined:
        return Text(f"{percent(row.value)} ({row.undefined} undefined)")
    shown = with_interval(row.value, row.low, row.high)
    # A blank where others have their mark keeps the figures in line.
    marked = any(_mark(test) for (_, of_task), test in board.tests.items() if of_task == task)
    shown += _mark(board.test(key, task)) or " " * marked
    best = board.best(task)
    is_best = best is not None and row.value == best.value and not row.uses_reference
    return Text(shown, bold=is_best, grey=_is_grey(board, key, task))


def _is_grey(board: Leaderboard, key: Key, task: str) -> bool:
    """Whether a strategy is outside the interval of the best one."""
    row, best = board.rows[key].get(task), board.best(task)
    return row is not None and best is not None and not row.uses_reference and row.value < best.low


def _places(board: Leaderboard) -> list[tuple[Key, str]]:
    return [(key, task) for key in board.rows for task in board.tasks]


def _mark(test: Significance | None) -> str:
    return "" if test is None or not test.adjusted < SIGNIFICANT else _mark_of(test.kind)


def _mark_of(kind: str) -> str:
    return UNPAIRED if kind == "unpaired" else "*"


def _notes(board: Leaderboard, oracles: bool) -> list[str]:
    notes = ["[95 % interval]; bold: best"]
    if any(_is_grey(board, *place) for place in _places(board)):
        notes[0] += "; grey: below the best's interval"
    if oracles:
        notes.append(f"{ORACLE} looks at the reference: what a perfect choice would reach, not a strategy")
    if board.baseline is None:
        return notes
    kinds = {kind: [test for test in board.tests.values() if test.kind == kind] for kind in METHODS}
    said = {
        kind: any(test.adjusted < SIGNIFICANT for test in tests) for kind, tests in kinds.items() if tests
    }
    corrected = f"{_corrected(len(board.tests))}, p < {SIGNIFICANT}"
    for kind, differs in said.items():
        if differs:
            notes.append(
                f"{_mark_of(kind)} differs from {board.baseline.name} ({METHODS[kind]}, {corrected})"
            )
    if said and not any(said.values()):
        methods = " and ".join(METHODS[kind] for kind in said)
        notes.append(f"no row differs from {board.baseline.name} ({methods}, {corrected})")
    if kinds["unpaired"]:
        unpaired = [key for (key, _), test in board.tests.items() if test.kind == "unpaired"]
        rows = ", ".join(dict.fromkeys(map(str, unpaired)))
        notes.append(
            f"by standard errors, since outcomes by problem are not known of both: {rows} "
            "(lm_eval --log_samples writes them)"
        )
    untested = []
    for key, row in board.rows.items():
        against = board.baseline.row_for(key)
        common = () if against is None else row.keys() & board.rows[against].keys()
        if not board.is_oracle(key) and any((key, task) not in board.tests for task in common):
            untested.append(str(key))
    if untested:
        notes.append(f"not tested on every benchmark: {', '.join(untested)}")
    return notes


def _corrected(count: int) -> str:
    return "one test" if count == 1 else f"Holm for {count} tests"


def _mean(row: dict[str, StrategyRow], name: str) -> float:
    values = [getattr(each, name) for each in row.values()]
    return sum(values) / len(values)


def _count(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if value >= 50 or value == int(value) else f"{value:.1f}"


def significant(value: float) -> str:
    """Three digits, without an exponent."""
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _low(value: float) -> float:
    return -math.inf if math.isnan(value) else value
