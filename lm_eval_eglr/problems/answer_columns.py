"""How the bare answer is read from what a hub data set has in its answer column."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from eglr_selectors import extract

_WHOLE = re.compile(r"([-+]?)0*(\d+)(?:\.0*)?")
_SEPARATOR = re.compile(r"\$\s*,\s*\$?|,\s*\$")


def boxed(value: Any) -> str:
    r"""The content of the last ``\boxed{}`` of a solution."""
    answer = extract(str(value))
    if answer is None:
        raise ValueError(r"no \boxed{} in the solution")
    return answer.text


def after_hash(value: Any) -> str:
    """What follows the last ``####`` of a solution."""
    _, mark, answer = str(value).rpartition("####")
    if not mark:
        raise ValueError("no #### in the solution")
    return answer.strip()


def integer(value: Any) -> str:
    """An integer without leading zeros, thousands commas or a decimal part of zeros (``073``, ``27.0``)."""
    match = _WHOLE.fullmatch(str(value).strip().replace(",", ""))
    if match is None:
        raise ValueError(f"{str(value)[:40]!r} is not an integer")
    return ("-" if match[1] == "-" else "") + match[2]


def single_element(value: Any) -> str:
    """The only element of a list."""
    if isinstance(value, str) or len(value) != 1:
        raise ValueError(f"{str(value)[:40]!r} is not a list of one string")
    return str(value[0])


def strip_dollars(value: Any) -> str:
    """LaTeX without ``$``; where they parted several values, a comma does. A final full stop goes too."""
    text = _SEPARATOR.sub(", ", str(value).strip().rstrip("."))
    return text.replace("$", "").strip()


ANSWER_COLUMNS: dict[str, Callable[[Any], str]] = {
    "boxed": boxed,
    "after_hash": after_hash,
    "integer": integer,
    "single_element": single_element,
    "strip_dollars": strip_dollars,
}
