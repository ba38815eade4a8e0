"""Coordinates of rollouts: depth × temperature, with the two axes that depth may have."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from eglr_selectors.options import check_count, check_name

Axis = Literal["L", "R"]
"""The depth axes: spans of top layers, recurrences of a recurrent block."""

_COORDINATE = re.compile(r"([LR])(\d+)/T(\?|\d+(?:\.\d+)?(?:e[+-]?\d+)?)#(\d+)(?:@(\d+\.\d+(?:/\d+\.\d+)*))?")


@dataclass(frozen=True, slots=True)
class Cell:
    """A coordinate of the depth × temperature grid.

    Cells sort in grid order: by depth, temperature (unknown first), sample, path.

    Attributes:
        span: Level of the depth axis. On axis L the number of top decoder layers applied again at gated
            tokens, 0 being the plain model; on axis R the number of recurrences, at least 1.
        temperature: Sampling temperature; 0 is greedy, ``None`` is unknown (texts from elsewhere).
        sample: Index among the cells with this depth and temperature.
        path: Where the rollout parted from others that branch (EAGER): one (token, rank) per fork, the
            tokens counted from 0, rank r for the r-th likeliest token that was not taken before the
            fork. Empty for a rollout that is no branch.
        axis: The depth axis: ``L``, recursion of the top layers (arXiv 2606.16620), or ``R``, recurrences
            of a recurrent-depth model (arXiv 2502.05171).

    Raises:
        ValueError: If the axis is neither, or the level is not one of the axis.
    """

    span: int = 0
    temperature: float | None = 0.0
    sample: int = 0
    path: tuple[tuple[int, int], ...] = ()
    axis: Axis = field(default="L", kw_only=True)

    def __post_init__(self) -> None:
        if self.axis != "L":
            check_name("axis", self.axis, get_args(Axis))
            check_count("span", self.span, low=1)

    def __str__(self) -> str:
        temperature = "?" if self.temperature is None else f"{self.temperature:g}"
        return f"{self.axis}{self.span}/T{temperature}#{self.sample}" + (
            f"@{self.branch}" if self.path else ""
        )

    def __lt__(self, other: object) -> bool:
        return self._order < other._order if isinstance(other, Cell) else NotImplemented

    @property
    def _order(self) -> tuple[Any, ...]:
        temperature = -1.0 if self.temperature is None else self.temperature
        return self.axis, self.span, temperature, self.sample, self.path

    @property
    def depth(self) -> int:
        """The level of the depth axis, whichever axis that is: :attr:`span` by its general name."""
        return self.span

    @property
    def branch(self) -> str:
        """The path as text, such as ``12.1/40.1``; :meth:`path_of` reads it."""
        return "/".join(f"{token}.{rank}" for token, rank in self.path)

    @staticmethod
    def path_of(text: str | None) -> tuple[tuple[int, int], ...]:
        """Reads :attr:`branch`; nothing, as in records of older versions, is no branch."""
        forks = [fork.partition(".") for fork in (text or "").split("/") if fork]
        return tuple((int(token), int(rank)) for token, _, rank in forks)

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Reads a coordinate as ``str`` writes it: ``L4/T0.7#1``, ``R8/T0.7#1``, ``L0/T0#2@3.1/12.2``.

        Raises:
            ValueError: If it is none.
        """
        found = _COORDINATE.fullmatch(text)
        if found is None:
            raise ValueError(f"cell={text!r}: expected a coordinate such as L4/T0.7#1 or R8/T0.7#1")
        axis, level, temperature, sample, path = found.groups()
        known = None if temperature == "?" else float(temperature)
        return cls(int(level), known, int(sample), cls.path_of(path), axis=cast(Axis, axis))
