"""Fixed cells of the grid: what one rollout alone would have given."""

from __future__ import annotations

from eglr_selectors.cell import Axis
from eglr_selectors.depth_axis import AXES
from eglr_selectors.options import check_count, check_name, check_number
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import SelectFn, register_selector
from eglr_selectors.selection import Selection
from eglr_selectors.voting import choose, undefined


@register_selector("cell")
def cell(*, span: int, temperature: float, sample: int = 0, axis: Axis | None = None) -> SelectFn:
    """The rollout of one cell of the grid: level of the depth axis, temperature, sample.

    ``axis=R`` or ``axis=L`` takes it of pools on that axis only. Undefined where the pool has no such
    cell, as pools of plain texts, whose temperature is not known.
    """
    span = check_count("span", span)
    if axis is not None:
        check_name("axis", axis, AXES)
    temperature = check_number("temperature", temperature, low=0)
    sample = check_count("sample", sample)

    def choice(parsed: ParsedPool) -> Selection:
        for i, rollout in enumerate(parsed):
            at = rollout.cell
            at_coordinate = (at.depth, at.temperature, at.sample) == (span, temperature, sample)
            if at_coordinate and axis in (None, at.axis):
                return choose(parsed, i, consumed=[i])
        symbol = axis or parsed.pool.axis.symbol
        missing = f"the pool has no cell {symbol}{span}/T{temperature:g}#{sample}"
        return undefined(parsed, missing if len(parsed) else "the pool is empty", consumed=[])

    return choice


@register_selector("greedy")
def greedy() -> SelectFn:
    """The plain model's greedy rollout: temperature 0 at span 0, or at the deepest recurrences."""
    return lambda parsed: cell(span=parsed.pool.baseline_depth, temperature=0)(parsed)


@register_selector("first")
def first() -> SelectFn:
    """The first rollout in grid order, whatever its cell."""

    def choice(parsed: ParsedPool) -> Selection:
        return choose(parsed, 0, consumed=[0]) if len(parsed) else undefined(parsed, "the pool is empty")

    return choice
