"""A table of texts, written as whatever it is wanted for."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from lm_eval_eglr.reports.escaping import for_csv, for_html, for_latex, for_markdown, for_terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

NARROWEST = 8
"""Columns that a name is folded to at the least, before rows are printed one after the other."""

GAP = 2
"""Blanks between two columns."""

Format = Literal["rich", "markdown", "csv", "latex", "html", "json"]
TEXT_FORMATS = tuple(name for name in get_args(Format) if name not in ("rich", "json"))


@dataclass(frozen=True, slots=True)
class Text:
    """A cell of a table.

    Attributes:
        text: What it says; nothing in it is markup.
        bold: Whether it stands out.
        grey: Whether it stands back.
    """

    text: str
    bold: bool = False
    grey: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its notes.

    Attributes:
        header: One text per column.
        rows: The cells.
        labels: How many columns on the left are names; the rest are numbers.
        notes: Lines below the table.
        title: Line above the table.
        rules: Rows above which there is a line.
        optional: Columns that a narrow terminal may go without, the first to go first.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    labels: int = 1
    notes: tuple[str, ...] = ()
    title: str = ""
    rules: tuple[int, ...] = ()
    optional: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.header):
                raise ValueError(f"rows[{number}]: {len(row)} cells for {len(self.header)} columns")

    def without(self, columns: Collection[int]) -> Table:
        """Returns the table without some of its columns."""
        kept = [number for number in range(len(self.header)) if number not in columns]
        return replace(
            self,
            header=tuple(self.header[number] for number in kept),
            rows=tuple(tuple(row[number] for number in kept) for row in self.rows),
            labels=sum(number < self.labels for number in kept),
            optional=tuple(kept.index(number) for number in self.optional if number in kept),
        )


def render(table: Table, form: str, *, caption: str = "", label: str = "") -> str:
    """Writes a table as text.

    Args:
        table: The table.
        form: One of ``TEXT_FORMATS``.
        caption: Of a LaTeX table; by default the table's title.
        label: What a LaTeX document refers to it by; by default ``tab:eglr``.

    Raises:
        ValueError: If the format is unknown.
    """
    writers = {"markdown": _markdown, "csv": _csv, "html": _html}
    if form == "latex":
        return _latex(table, caption or table.title, label or "tab:eglr")
    if form not in writers:
        raise ValueError(f"format={form!r}: expected one of {', '.join(TEXT_FORMATS)}")
    return writers[form](table)


def print_rich(table: Table) -> None:
    """Prints a table for people: in colour on a terminal, plain elsewhere.

    Where it is too wide, it first goes without its optional columns, then folds its names, then prints one
    row after the other. In a pipe there is no width, unless ``COLUMNS`` gives one.
    """
    from rich.console import Console
    from rich.text import Text as RichText

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=max(80, _width(table)), highlight=False)
    fitted = _fitted(table, console.width)
    if table.title:
        console.print(RichText(for_terminal(table.title), "bold"))
        console.print()
    if _width(fitted, NARROWEST) > console.width:
        _print_stacked(table, console)
    else:
        console.print(_as_rich(fitted))
    for note in fitted.notes:
        console.print(RichText(for_terminal(note), "dim"))


def _fitted(table: Table, width: int) -> Table:
    """The table with as many of its optional columns as fit, and a note of those that do not."""
    left_out: list[int] = []
    fitted = table
    for column in table.optional:
        if _width(fitted) <= width:
            break
        left_out.append(column)
        fitted = table.without(left_out)
    if not left_out:
        return table
    names = ", ".join(table.header[column] for column in sorted(left_out))
    return replace(fitted, notes=(*fitted.notes, f"not shown at this width: {names}"))


def _as_rich(table: Table) -> RichTable:
    from rich.box import Box
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    blank, rule = "    \n", " ── \n"
    ruled = Box(blank + blank + rule + blank + rule + blank + blank + blank)
    shown = RichTable(box=ruled, show_edge=False, pad_edge=False, padding=(0, GAP // 2))
    for number, name in enumerate(table.header):
        right = number >= table.labels
        shown.add_column(
            RichText(for_terminal(name)),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right,
            min_width=None if right else NARROWEST,
        )
    for number, row in enumerate(table.rows):
        if number in table.rules:
            shown.add_section()
        shown.add_row(*(RichText(for_terminal(cell.text), _style(cell)) for cell in row))
    return shown


def _style(cell: Text) -> str:
    return "bold" if cell.bold else "dim" if cell.grey else ""


def _width(table: Table, most_of_a_name: int | None = None) -> int:
    """Terminal columns that a table takes with its figures whole, its names folded if that is wanted."""
    from rich.cells import cell_len

    width = 0
    for number, name in enumerate(table.header):
        widest = max(
            cell_len(for_terminal(text)) for text in (name, *(row[number].text for row in table.rows))
        )
        if number < table.labels:
            widest = max(widest, NARROWEST) if most_of_a_name is None else min(widest, most_of_a_name)
        width += widest + (GAP + 1) * (number > 0)
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
            console.print(RichText(line, _style(cell)))


def csv_of(records: Sequence[Mapping[str, Any]]) -> str:
    """Writes records as CSV, one column per key: numbers as numbers, undefined ones as nothing."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = list(dict.fromkeys(name for record in records for name in record))
    writer.writerow(names)
    writer.writerows([[_plain(record.get(name)) for name in names] for record in records])
    return buffer.getvalue()


def _plain(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return for_csv(value) if isinstance(value, str) else repr(value)


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def shown(cell: Text) -> str:
        return f"**{for_markdown(cell.text)}**" if cell.bold else for_markdown(cell.text)

    rule = ["---" if number < table.labels else "---:" for number in range(len(table.header))]
    lines = [f"{for_markdown(table.title)}\n"] if table.title else []
    lines += [line([for_markdown(name) for name in table.header]), line(rule)]
    lines += [line([shown(cell) for cell in row]) for row in table.rows]
    notes = [f"\n{for_markdown(note)}" for note in table.notes]
    return "\n".join([*lines, *notes]) + "\n"


def _csv(table: Table) -> str:
    return csv_of([dict(zip(table.header, (cell.text for cell in row), strict=True)) for row in table.rows])


def _latex(table: Table, caption: str, label: str) -> str:
    def shown(cell: Text) -> str:
        text = for_latex(cell.text)
        if cell.bold:
            return rf"\textbf{{{text}}}"
        return rf"\textcolor{{gray}}{{{text}}}" if cell.grey else text

    columns = "l" * table.labels + "r" * (len(table.header) - table.labels)
    lines = [r"% \usepackage{booktabs,xcolor}", r"\begin{table}", r"\centering"]
    lines += [rf"\caption{{{for_latex(caption)}}}", rf"\label{{{re.sub(r'[^A-Za-z0-9:._-]', '-', label)}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(for_latex(name) for name in table.header) + r" \\", r"\midrule"]
    for number, row in enumerate(table.rows):
        lines += [r"\midrule"] if number in table.rules else []
        lines.append(" & ".join(shown(cell) for cell in row) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        lines += [r"\par\smallskip\footnotesize"]
        # Not \\\\, which would take a note that begins with a bracket for its option.
        lines += [rf"{for_latex(note)}\par" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _html(table: Table) -> str:
    def shown(cell: Text) -> str:
        text = for_html(cell.text)
        if cell.bold:
            return f"<strong>{text}</strong>"
        return f'<span style="color:gray">{text}</span>' if cell.grey else text

    caption = f"<caption>{for_html(table.title)}</caption>\n" if table.title else ""
    head = "".join(f"<th>{for_html(name)}</th>" for name in table.header)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{shown(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    notes = "".join(f"<p>{for_html(note)}</p>\n" for note in table.notes)
    table_html = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
    return f"<table>\n{caption}{table_html}</table>\n{notes}"
