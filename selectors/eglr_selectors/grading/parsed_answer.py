"""What an answer says, as far as it can be told without evaluating anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from eglr_selectors.grading.formula import Tree


@dataclass(frozen=True, slots=True)
class Value:
    """A number or formula, with its unit and whether a percent sign follows."""

    tree: Tree
    unit: str = ""
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """A text answer, case and outer punctuation removed."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice letter with what follows it: (B) 12."""

    letter: str
    content: ParsedAnswer | None


@dataclass(frozen=True, slots=True)
class Group:
    """Several values: ``list`` (bare, any order), ``set``, ``()``, ``[]``, or ``matrix`` and its width."""

    kind: str
    items: tuple[ParsedAnswer, ...]


Piece = tuple[bool, Tree, Tree, bool]
"""An interval: open at the left?, left end, right end, open at the right?"""


@dataclass(frozen=True, slots=True)
class RealSet:
    """A union of intervals."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """What a name stands for: x = 5, f(x) = 2x, x > 3."""

    name: str
    content: ParsedAnswer


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation, as the tree of its left side minus its right one."""

    tree: Tree


@dataclass(frozen=True, slots=True)
class Digits:
    """A number in a given base."""

    digits: str
    base: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """Values with colons between them: 3:4."""

    parts: tuple[ParsedAnswer, ...]


@dataclass(frozen=True, slots=True)
class Opaque:
    """What is not understood; ``final`` if math-verify must not be asked either (prose, false equations)."""

    text: str
    never_equal: bool = False


ParsedAnswer = Union[  # noqa: UP007 (the names are used before they are defined, also on Python 3.10)
    Value, Words, Choice, Group, RealSet, Named, Equation, Digits, Ratio, Opaque
]
