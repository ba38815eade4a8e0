"""Fixed cells of the grid: what one rollout alone would have given."""

from __future__ import annotations

from eglr_selectors.options import check_count, check_number
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import SelectFn, register_selector
from eglr_selectors.selection import Selection
from eglr_selectors.voting import choose, undefined


@register_selector("cell")
def cell(*, span: int, temperature: float, sample: int = 0) -> SelectFn:
    """The rollout of one cell of the grid: span, temperature, sample.

    Undefined where the pool has no such cell, as pools of plain texts, whose temperature is not known.
    """
    span = check_count("span", span)
    temperature = check_number("temperature", temperature, low=0)
    sample = check_count("sample", sample)

    def choice(parsed: ParsedPool) -> Selection:
        for i, rollout in enumerate(parsed):
            at = rollout.cell
            if (at.span, at.temperature, at.sample) == (span, temperature, sample):
                return choose(parsed, i, consumed=[i])
        missing = f"the pool has no cell L{span}/T{temperature:g}#{sample}"
        return undefined(parsed, missing if len(parsed) else "the pool is empty", consumed=[])

    return choice


@register_selector("greedy")
def greedy() -> SelectFn:
    """The plain model's greedy rollout: span 0, temperature 0."""
    return cell(span=0, temperature=0)


@register_selector("first")
def first() -> SelectFn:
    """The first rollout in grid order, whatever its cell."""

    def choice(parsed: ParsedPool) -> Selection:
        return choose(parsed, 0, consumed=[0]) if len(parsed) else undefined(parsed, "the pool is empty")

    return choice
