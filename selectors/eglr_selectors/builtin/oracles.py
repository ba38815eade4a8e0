"""Oracles: what a perfect choice would reach. They use the reference and are marked so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eglr_selectors.options import check_count, check_number
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import SelectFn, register_selector
from eglr_selectors.scores import highest
from eglr_selectors.selection import Selection
from eglr_selectors.voting import undefined

_WORTH = {True: 1.0, None: 0.5, False: 0.0}
# An answer that could not be graded goes before a wrong one: the oracle must not claim to have failed.


@register_selector("oracle", uses_reference=True)
def oracle(*, spans: Sequence[int] | None = None, temperatures: Sequence[float] | None = None) -> SelectFn:
    """The first correct rollout, of the whole grid or of some depths and temperatures.

    ``spans`` are levels of the pool's depth axis, L or R.

    Where none is correct, the first whose answer could not be graded, else the first answer.
    Undefined without a reference and where the sub-grid is empty. A rollout that branched off another is
    in the whole but on neither axis.
    """
    wanted_spans = _values("spans", spans, check_count)
    wanted_temperatures = _values("temperatures", temperatures, lambda name, v: check_number(name, v, low=0))

    def choice(parsed: ParsedPool) -> Selection:
        if parsed.reference is None:
            return undefined(parsed, "an oracle needs the reference")
        inside = [
            i
            for i, rollout in enumerate(parsed)
            if (not rollout.cell.path or (wanted_spans is None and wanted_temperatures is None))
            and (wanted_spans is None or rollout.cell.depth in wanted_spans)
            and (wanted_temperatures is None or rollout.cell.temperature in wanted_temperatures)
        ]
        if not inside:
            reason = f"the pool has no rollout of these {parsed.pool.axis.levels} and temperatures"
            return undefined(parsed, reason if len(parsed) else "the pool is empty", consumed=[])
        return highest(parsed, [_WORTH[correct] for correct in parsed.correct], among=inside)

    return choice


@register_selector("temperature_oracle", uses_reference=True)
def temperature_oracle() -> SelectFn:
    """The oracle of the temperature axis alone: span 0 only, or the deepest recurrences."""
    return lambda parsed: oracle(spans=[parsed.pool.baseline_depth])(parsed)


@register_selector("layer_oracle", uses_reference=True)
def layer_oracle() -> SelectFn:
    """The oracle of the depth axis alone, layers or recurrences: temperature 0 only."""
    return oracle(temperatures=[0.0])


def _values(name: str, values: Any, check: Any) -> frozenset[float] | None:
    if values is None:
        return None
    if isinstance(values, int | float):
        values = [values]
    if isinstance(values, str) or not list(values):
        raise ValueError(f"{name}={values!r}: expected a list of at least one number")
    return frozenset(check(name, value) for value in values)
