"""The two axes that depth may have, in words, and which level of an axis is the baseline of a grid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from eglr_selectors.cell import Axis, Cell


@dataclass(frozen=True, slots=True)
class DepthAxis:
    """A depth axis as tables and figures name it.

    Attributes:
        symbol: Its letter in coordinates.
        level: What one level of it is called, and the option that sets the levels is, in the plural.
        levels: The plural.
        noun: What stands before "axis" and "axes".
        parts: What the axis varies, in the plural.
        title: Title of an axis of a figure.
    """

    symbol: Axis
    level: str
    levels: str
    noun: str
    parts: str
    title: str

    def name(self, level: int) -> str:
        """One level in a sentence: ``span 4``, ``R8``."""
        return f"span {level}" if self.symbol == "L" else f"R{level}"

    def heading(self, level: int) -> str:
        """One level as the heading of a row: ``L = 4``, ``R = 8``."""
        return f"{self.symbol} = {level}"

    def others(self, baseline: int) -> str:
        """The levels that are not the baseline, as a condition: ``L > 0``, ``R < 8``."""
        return f"{self.symbol} {'>' if self.symbol == 'L' else '<'} {baseline}"


AXES: dict[Axis, DepthAxis] = {
    "L": DepthAxis("L", "span", "spans", "layer", "layers", "recursion span, layers"),
    "R": DepthAxis("R", "recurrences", "recurrences", "recurrence", "recurrences", "recurrences"),
}


def axis_of(cells: Iterable[Cell]) -> DepthAxis:
    """Returns the depth axis of some cells; that of spans if there are none.

    Raises:
        ValueError: If they are on both axes.
    """
    found = {cell.axis for cell in cells} or {"L"}
    if len(found) > 1:
        raise ValueError(
            "cells: both depth axes, L and R; a recurrent-depth model has no spans and another model no "
            "recurrences, so a pool or a grid has one axis"
        )
    return AXES[found.pop()]


def baseline_depth(cells: Iterable[Cell]) -> int:
    """Returns the level with which "temperature alone" is decoded (this project).

    On axis L that is 0, the plain model. Axis R has no level 0: a model that is not iterated says nothing.
    There it is the deepest level, at which the model spends the most on a rollout, so that shallower levels
    have to earn their place beside as many samples of the deepest.
    """
    cells = list(cells)
    return 0 if axis_of(cells).symbol == "L" else max(cell.depth for cell in cells)
