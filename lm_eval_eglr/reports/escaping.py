"""Text of models, files and users, made harmless for where it is shown."""

from __future__ import annotations

import html
import json
import re
from typing import Any

# C0 and C1 controls, and what reorders or hides text: bidirectional marks, line separators.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "−": "$-$",
    "–": "--",
}


def for_terminal(text: str) -> str:
    """Shows control characters as escapes, so that a text cannot move the cursor or recolour a terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def for_csv(text: str) -> str:
    """Puts a quote before what a spreadsheet would run as a formula; plain numbers stay numbers."""
    shown = for_terminal(text)
    if shown.startswith(_FORMULA) and not re.fullmatch(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", shown):
        return "'" + shown
    return shown


def for_html(text: str) -> str:
    """Escapes markup and quotes."""
    return html.escape(for_terminal(text))


def for_markdown(text: str) -> str:
    """Escapes what would end a table's cell, make markup or be taken for HTML."""
    return re.sub(r"([\\`*_\[\]|<>~$&])", r"\\\1", for_terminal(text))


def for_latex(text: str) -> str:
    """Escapes LaTeX's special characters."""
    return "".join(_LATEX.get(character, character) for character in for_terminal(text))


def for_script(value: Any) -> str:
    """JSON that may stand inside a script element: no tag can begin or end in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
