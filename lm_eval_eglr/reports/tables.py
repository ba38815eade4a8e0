"""A table of texts, written as whatever it is wanted for."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from lm_eval_eglr.reports.escaping import for_csv, for_html, for_latex, for_markdown, for_terminal

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 8
"""Columns that a name is folded to at the least, before rows are printed one after the other."""

Format = Literal["rich", "markdown", "csv", "latex", "html", "json"]
TEXT_FORMATS = tuple(name for name in get_args(Format) if name not in ("rich", "json"))


@dataclass(frozen=True, slots=True)
class Text:
    """A cell of a table.

    Attributes:
        text: What it says; nothing in it is markup.
        bold: Whether it stands out.
    """

    text: str
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its notes.

    Attributes:
        header: One text per column.
        rows: The cells.
        labels: How many columns on the left are names; the rest are numbers.
        notes: Lines below the table.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    labels: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.header):
                raise ValueError(f"rows[{number}]: {len(row)} cells for {len(self.header)} columns")


def render(table: Table, form: str) -> str:
    """Writes a table as text.

    Raises:
        ValueError: If the format is unknown.
    """
    writers = {"markdown": _markdown, "csv": _csv, "latex": _latex, "html": _html}
    if form not in writers:
        raise ValueError(f"format={form!r}: expected one of {', '.join(TEXT_FORMATS)}")
    return writers[form](table)


def print_rich(table: Table) -> None:
    """Prints a table for people: in colour on a terminal, plain elsewhere."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    shown = RichTable(box=box.SIMPLE_HEAD)
    for number, name in enumerate(table.header):
        right = number >= table.labels
        shown.add_column(
            RichText(for_terminal(name)),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right,
            min_width=NARROWEST if not right else None,
        )
    for row in table.rows:
        shown.add_row(*(RichText(for_terminal(cell.text), "bold" if cell.bold else "") for cell in row))
    console = Console()
    if not console.is_terminal:  # a pipe has no width: what reads it wants the lines whole
        console = Console(width=max(80, Console(width=10_000).measure(shown).maximum))
    if _least_width(table) > console.width:
        _print_stacked(table, console)
    else:
        console.print(shown)
    for note in table.notes:
        console.print(RichText(for_terminal(note)), soft_wrap=True)


def _least_width(table: Table) -> int:
    """Terminal columns that a table takes with its names folded and its figures whole."""
    from rich.cells import cell_len

    width = 1
    for number, name in enumerate(table.header):
        texts = [name, *(row[number].text for row in table.rows)]
        widest = max(cell_len(for_terminal(text)) for text in texts)
        width += 3 + (min(widest, NARROWEST) if number < table.labels else widest)
    return width


def _print_stacked(table: Table, console: Console) -> None:
    """Prints a row after the other where the columns do not fit side by side: figures are never torn."""
    from rich.text import Text as RichText

    wide = max(len(name) for name in table.header)
    for row in table.rows:
        names = " · ".join(for_terminal(cell.text) for cell in row[: table.labels] if cell.text)
        console.print(RichText(names, "bold"))
        for name, cell in zip(table.header[table.labels :], row[table.labels :], strict=True):
            line = f"  {for_terminal(name):{wide}}  {for_terminal(cell.text)}"
            console.print(RichText(line, "bold" if cell.bold else ""))


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def shown(cell: Text) -> str:
        return f"**{for_markdown(cell.text)}**" if cell.bold else for_markdown(cell.text)

    rule = ["---" if number < table.labels else "---:" for number in range(len(table.header))]
    lines = [line([for_markdown(name) for name in table.header]), line(rule)]
    lines += [line([shown(cell) for cell in row]) for row in table.rows]
    notes = [f"\n{for_markdown(note)}" for note in table.notes]
    return "\n".join([*lines, *notes]) + "\n"


def _csv(table: Table) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([for_csv(name) for name in table.header])
    writer.writerows([[for_csv(cell.text) for cell in row] for row in table.rows])
    return buffer.getvalue()


def _latex(table: Table) -> str:
    def shown(cell: Text) -> str:
        return rf"\textbf{{{for_latex(cell.text)}}}" if cell.bold else for_latex(cell.text)

    columns = "l" * table.labels + "r" * (len(table.header) - table.labels)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(for_latex(name) for name in table.header) + r" \\", r"\midrule"]
    lines += [" & ".join(shown(cell) for cell in row) + r" \\" for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% {for_latex(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _html(table: Table) -> str:
    def shown(cell: Text) -> str:
        return f"<strong>{for_html(cell.text)}</strong>" if cell.bold else for_html(cell.text)

    head = "".join(f"<th>{for_html(name)}</th>" for name in table.header)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{shown(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    notes = "".join(f"<p>{for_html(note)}</p>\n" for note in table.notes)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n{notes}"
