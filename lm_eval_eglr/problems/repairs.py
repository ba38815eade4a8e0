"""Known faults of a benchmark's rows: what is repaired, dropped, or marked as it is, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lm_eval_eglr.problems.text_lines import read_lines

FAULTS = ("unsolvable", "gold")
"""``unsolvable``: the text lacks what is needed. ``gold``: the reference answer is read badly."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What is done about one row.

    Attributes:
        id: The row's id.
        reason: What is wrong with it.
        drop: Whether it is left out.
        column: Column in which ``find`` is replaced by ``put``; a row that does not have ``find`` there is
            of a release that is already repaired.
        find: Text to replace.
        put: What replaces it.
        fault: Mark for a row that is kept as it is, one of :data:`FAULTS`; empty for none. It stands in
            the document's column ``fault``.
        tolerance: Largest accepted distance from a numeric answer, 0 for none. It stands in the document's
            column ``tolerance``.
    """

    id: str
    reason: str
    drop: bool = False
    column: str = ""
    find: str = ""
    put: str = ""
    fault: str = ""
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not self.reason:
            raise ValueError(f"repair of {self.id}: no reason")
        if self.fault and self.fault not in FAULTS:
            raise ValueError(
                f"repair of {self.id}: fault={self.fault!r}: expected one of {', '.join(FAULTS)}"
            )
        if bool(self.column) != bool(self.find):
            raise ValueError(f"repair of {self.id}: column and find go together")
        if self.tolerance < 0:
            raise ValueError(f"repair of {self.id}: tolerance={self.tolerance!r}: expected a number >= 0")
        if self.drop + bool(self.column) + bool(self.fault) + bool(self.tolerance) != 1:
            raise ValueError(f"repair of {self.id}: expected one of drop, column, fault, tolerance")

    def apply(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the repaired row, ``None`` if it is left out."""
        if self.drop:
            return None
        if self.column:
            return {**row, self.column: row[self.column].replace(self.find, self.put)}
        return {**row, "fault": self.fault} if self.fault else {**row, "tolerance": self.tolerance}


def read_repairs(path: Path) -> list[Repair]:
    """Reads a task's repairs.

    Raises:
        ValueError: If a line is wrong.
    """
    known = {field.name for field in fields(Repair)}
    repairs = []
    for number, line in read_lines(path):
        record = json.loads(line)
        for key in record:
            if key not in known:
                raise ValueError(
                    f"{path}, line {number}: {key!r}: expected some of {', '.join(sorted(known))}"
                )
        repairs.append(Repair(**record))
    return repairs


def repair_rows(rows: Sequence[dict[str, Any]], repairs: Sequence[Repair]) -> list[dict[str, Any]]:
    """Applies all repairs; a column that one of them needs, every row gets."""
    blank: dict[str, Any] = {"fault": ""} if any(repair.fault for repair in repairs) else {}
    if any(repair.tolerance for repair in repairs):
        blank["tolerance"] = 0.0
    repaired: dict[str, dict[str, Any] | None] = {row["id"]: {**row, **blank} for row in rows}
    for repair in repairs:
        row = repaired.get(repair.id)
        if row is not None:
            repaired[repair.id] = repair.apply(row)
    return [row for row in repaired.values() if row is not None]
