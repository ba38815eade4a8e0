"""A pool as a notebook shows it: the matrix of its answers, depth down, temperatures across."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

MOST_COLUMNS = 16
"""Answers beside each other where there is no grid."""

LONGEST = 40
"""Characters of an answer that are shown."""

STYLES = {True: "background:rgba(46,160,67,.28)", False: "", None: "opacity:.55"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer of the matrix.

    Attributes:
        row: Name of its row; empty where there is no grid.
        column: Name of its column; empty where there is no grid.
        answer: The answer, ``None`` if there is none.
        correct: Whether it is right; ``None`` if that is not known.
        detail: What is said when it is pointed at.
    """

    row: str
    column: str
    answer: str | None
    correct: bool | None
    detail: str


def matrix_html(entries: Sequence[Entry], caption: str) -> str:
    """Returns a table of answers; nothing in them is markup.

    Args:
        entries: The answers, in grid order.
        caption: Line above the table.
    """
    if any(entry.row for entry in entries):
        columns = list(dict.fromkeys(entry.column for entry in entries))
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        lines = [f"<tr><th></th>{head}</tr>"]
        for row in dict.fromkeys(entry.row for entry in entries):
            in_row: dict[str, list[Entry]] = {}
            for entry in entries:
                if entry.row == row:
                    in_row.setdefault(entry.column, []).append(entry)
            cells = "".join(_cell(in_row.get(name, ())) for name in columns)
            lines.append(f"<tr><th>{html.escape(row)}</th>{cells}</tr>")
    else:
        starts = range(0, len(entries), MOST_COLUMNS)
        rows = [entries[start : start + MOST_COLUMNS] for start in starts]
        lines = ["<tr>" + "".join(_cell([entry]) for entry in row) + "</tr>" for row in rows]
    return f"<table><caption>{html.escape(caption)}</caption>{''.join(lines)}</table>"


def _cell(entries: Sequence[Entry]) -> str:
    """A cell; rollouts that branched off one another share theirs."""
    shown = [
        f'<span style="{STYLES[entry.correct]}" title="{html.escape(entry.detail)}">{_text(entry)}</span>'
        for entry in entries
    ]
    return f"<td>{'<br>'.join(shown)}</td>"


def _text(entry: Entry) -> str:
    if entry.answer is None:
        return "–"
    answer = entry.answer if len(entry.answer) <= LONGEST else entry.answer[: LONGEST - 1] + "…"
    return html.escape(answer) + (" ✓" if entry.correct else "")
