"""What an answer says, as far as it can be told without evaluating anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from eglr_selectors.grading.formula_tokens import Tree


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
    """Several values.

    Attributes:
        kind: ``list`` (bare, any order), ``set``, ``()``, ``[]``, ``matrix`` and its width, ``cases`` (in any
            order) or ``branch`` (a value and its condition).
        items: The values.
    """

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
    """An equation.

    Attributes:
        tree: Its left side minus its right one; ``None`` if a side is beyond the formula parser.
        value: Its right side if that is a constant: ``m + n = 113`` states 113.
    """

    tree: Tree | None
    value: ParsedAnswer | None = None


@dataclass(frozen=True, slots=True)
class Conditional:
    """What holds under a condition: a formula for all n, a solution for every integer k.

    Attributes:
        content: What holds.
        condition: The condition as it was written, without blanks and case.
        relation: The condition parsed, if it is a relation.
    """

    content: ParsedAnswer
    condition: str
    relation: ParsedAnswer | None = None


@dataclass(frozen=True, slots=True)
class Congruence:
    """x = 3 (mod 7): a name or an empty text, what is left over, and the modulus."""

    name: str
    residues: frozenset[int]
    modulus: int


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day, in minutes after midnight."""

    minutes: int


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
    Value,
    Words,
    Choice,
    Group,
    RealSet,
    Named,
    Equation,
    Conditional,
    Congruence,
    Clock,
    Digits,
    Ratio,
    Opaque,
]
