"""The L × T grid and plain samples: spans and temperatures as users write them, and all cells at once."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from eglr_selectors import ParsedPool
from eglr_selectors.cell import Axis
from eglr_selectors.options import check_finite, check_range
from eglr_selectors.pool import Cell, RolloutPool

from lm_eval_eglr.decoding.depth import MOST_ITERATIONS, DepthAxis
from lm_eval_eglr.decoding.request import CostModel, Request
from lm_eval_eglr.decoding.strategies.strategy import Budget, strategy

LARGEST_POOL = 2**16
"""Rollouts of one prompt: a pool is a list in memory before the first of them is decoded."""
ANY_DEPTH = 10**6  # checks how spans are written before the model's depth is known

DEFAULT_SPANS = "0:2:4:8"
DEFAULT_TEMPERATURES = "0:0.7x3"
# Below this depth the default spans are shares of the depth, at most half of it: the depth up to which
# the anchored rule was seen to converge.
SHALLOW_DEPTH = 16
SHALLOW_SPANS = "0:12.5%:25%:50%"

Items = str | int | float | Sequence[str | int | float]


def _items(name: str, value: Items) -> list[str]:
    """Splits "a:b:c", a single value or a sequence into strings."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        parts = str(value).split(":")
    elif isinstance(value, Sequence):
        parts = [str(item) for item in value]
    else:
        raise ValueError(f'{name}={value!r}: expected values separated by colons, such as "0:2:4"')
    if any(not part.strip() for part in parts) or not parts:
        raise ValueError(f'{name}={value!r}: expected values separated by colons, such as "0:2:4"')
    return [part.strip() for part in parts]


def parse_spans(value: Items | None, depth: int) -> tuple[int, ...]:
    """Reads spans such as ``"0:2:4:8"``, ``[0, 2]`` or ``"0:25%"`` (a share of the depth, at least 1).

    Args:
        value: What the user wrote; ``None`` takes the defaults for this depth.
        depth: Number of decoder layers of the model.

    Returns:
        The spans in the order given.

    Raises:
        ValueError: If a span is no integer from 0 to ``depth``, or occurs twice.
    """
    if value is None:
        value = DEFAULT_SPANS if depth >= SHALLOW_DEPTH else _distinct_shares(SHALLOW_SPANS, depth)
    spans = [_span(item, depth) for item in _items("spans", value)]
    repeated = [span for span, count in Counter(spans).items() if count > 1]
    if repeated:
        raise ValueError(f"spans={value!r}: span {repeated[0]} occurs twice at depth {depth}")
    return tuple(spans)


def _distinct_shares(text: str, depth: int) -> list[int]:
    """The default shares on a very shallow model, where several may round to the same span."""
    return sorted({_span(item, depth) for item in text.split(":")})


def _span(item: str, depth: int) -> int:
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", item)
    if share:
        percent = float(share[1])
        span = max(1, round(depth * percent / 100)) if percent else 0
    elif re.fullmatch(r"\d+", item):
        span = int(item)
    else:
        raise ValueError(f"spans: {item!r} is neither a number of layers nor a percentage of the depth")
    if span > depth:
        raise ValueError(f"spans: {item!r} is deeper than the model, which has {depth} layers")
    return span


def parse_recurrences(value: Items) -> tuple[int, ...]:
    """Reads numbers of recurrences such as ``"4:8:16:32"`` or ``[1, 2]``.

    Raises:
        ValueError: If one is no integer from 1 to ``MOST_ITERATIONS``, or occurs twice.
    """
    found = []
    for item in _items("recurrences", value):
        if not re.fullmatch(r"0*[1-9]\d*", item):
            raise ValueError(f"recurrences: {item!r} is no number of iterations; expected an integer >= 1")
        if len(item.lstrip("0")) > len(str(MOST_ITERATIONS)) or int(item) > MOST_ITERATIONS:
            raise ValueError(
                f"recurrences: {item!r:.40}: expected at most {MOST_ITERATIONS}, since a token keeps keys "
                "and values of each"
            )
        found.append(int(item))
    repeated = [number for number, count in Counter(found).items() if count > 1]
    if repeated:
        raise ValueError(f"recurrences={value!r}: {repeated[0]} occurs twice")
    return tuple(found)


def check_levels(spans: Items | None, recurrences: Items | None) -> None:
    """Checks how levels of depth are written, before the model is known.

    Raises:
        ValueError: For a bad value, or where both axes are given.
    """
    if spans is not None and recurrences is not None:
        raise ValueError(
            f"recurrences={recurrences!r}: expected either these or spans={spans!r}; a grid has one axis of "
            "depth, since a model has top layers that are applied again, or a recurrent block"
        )
    parse_spans(spans, ANY_DEPTH)
    if recurrences is not None:
        parse_recurrences(recurrences)


def levels_of(depth: DepthAxis, spans: Items | None, recurrences: Items | None) -> tuple[int, ...]:
    """The levels of depth on one model; a recurrent one's own where none is given.

    Raises:
        ValueError: If they are of another depth axis than the model's.
    """
    if depth.letter == "L":
        if recurrences is not None:
            raise ValueError(f"recurrences={recurrences!r}: {depth.refusal}")
        return parse_spans(spans, depth.deepest or 0)
    if spans is not None:
        raise ValueError(f"spans={spans!r}: {depth.refusal}")
    return (depth.own,) if recurrences is None else parse_recurrences(recurrences)


def level_of(depth: DepthAxis, recurrences: Items | None) -> int:
    """The one level of strategies that have no grid: the model's own, or a number of recurrences."""
    if recurrences is None:
        return depth.own
    levels = levels_of(depth, None, recurrences)
    if len(levels) != 1:
        raise ValueError(f"recurrences={recurrences!r}: expected one number, as this strategy has no grid")
    return levels[0]


def parse_temperatures(value: Items | None) -> tuple[float, ...]:
    """Reads temperatures such as ``"0:0.7:0.7"``, ``"0:0.7x3"`` or ``[0, 0.7]``.

    Returns:
        The temperatures in the order given, repetitions written out.

    Raises:
        ValueError: If one is no finite number ≥ 0, or 0 occurs twice (its rollouts would be equal).
    """
    if value is None:
        value = DEFAULT_TEMPERATURES
    temperatures: list[float] = []
    for item in _items("temperatures", value):
        number, _, times = item.partition("x")
        try:
            temperature, count = float(number), int(times or 1)
        except ValueError:
            temperature, count = -1.0, 0
        if not (0 <= temperature < math.inf) or count < 1:
            raise ValueError(
                f'temperatures: {item!r} is neither a number >= 0 nor a repetition such as "0.7x3"'
            )
        if len(temperatures) + count > LARGEST_POOL:
            raise ValueError(f"temperatures: {item!r:.40}: expected at most {LARGEST_POOL} in all")
        temperatures += [temperature + 0.0] * count
    if temperatures.count(0.0) > 1:
        raise ValueError(f"temperatures={value!r}: 0 occurs twice, and greedy rollouts would be equal")
    return tuple(temperatures)


def grid_cells(levels: Sequence[int], temperatures: Sequence[float], axis: Axis = "L") -> tuple[Cell, ...]:
    """Lists the cells of the grid, depth outermost; equal temperatures are numbered as samples.

    Raises:
        ValueError: If there are more than a pool may have.
    """
    if len(levels) * len(temperatures) > LARGEST_POOL:
        raise ValueError(
            f"{len(levels)} levels of depth × {len(temperatures)} temperatures: expected at most "
            f"{LARGEST_POOL} rollouts of a prompt"
        )
    cells = []
    for level in levels:
        seen: Counter[float] = Counter()
        for temperature in temperatures:
            cells.append(Cell(level, temperature, seen[temperature], axis=axis))
            seen[temperature] += 1
    return tuple(cells)


@dataclass(frozen=True, slots=True)
class FixedPlan:
    """All cells at once, whatever comes of them."""

    cells: tuple[Cell, ...]
    budget: Budget = "none"
    reads: bool = False
    has_more_rounds: bool = False

    @property
    def rows(self) -> int:
        """Every cell may need a row."""
        return len(self.cells)

    @property
    def own(self) -> int:
        """All rollouts."""
        return len(self.cells)

    def first_request(self, request: Request) -> Request:
        """The request as it is."""
        return request

    def next_requests(
        self, request: Request, pool: RolloutPool, parsed: ParsedPool | None, count: int
    ) -> list[Request]:
        """None: all was in the first request."""
        return []

    def wants(self, request: Request, pool: RolloutPool, parsed: ParsedPool | None) -> int:
        """None."""
        return 0

    def merge(self, pools: Sequence[RolloutPool]) -> RolloutPool:
        """The pool of the only request."""
        return pools[0]


@strategy("grid")
@dataclass(frozen=True, slots=True)
class Grid:
    """Every cell of the L × T grid.

    Attributes:
        spans: Spans L, layers; see :func:`lm_eval_eglr.decoding.strategies.grid.parse_spans`.
        recurrences: Iterations of a recurrent-depth model, in place of spans.
        temperatures: Temperatures; see :func:`lm_eval_eglr.decoding.strategies.grid.parse_temperatures`.
    """

    recurses: ClassVar[bool] = True

    spans: Items | None = None
    temperatures: Items | None = None
    recurrences: Items | None = None

    def __post_init__(self) -> None:
        check_levels(self.spans, self.recurrences)
        parse_temperatures(self.temperatures)

    def on(self, depth: DepthAxis, costs: CostModel) -> FixedPlan:
        """All cells of the grid."""
        levels = levels_of(depth, self.spans, self.recurrences)
        return FixedPlan(grid_cells(levels, parse_temperatures(self.temperatures), depth.letter))


@strategy("sample")
@dataclass(frozen=True, slots=True)
class Sample:
    """Independent samples of the plain model: full parallel sampling, the baseline of the others.

    Attributes:
        n: Rollouts per prompt, up to 65,536; no greedy one is among them.
        temperature: Their temperature.
        recurrences: Iterations of a recurrent-depth model; its own by default.
    """

    recurses: ClassVar[bool] = False

    n: int = 16
    temperature: float = 0.7
    recurrences: Items | None = None

    def __post_init__(self) -> None:
        check_range("n", self.n, 1, LARGEST_POOL, integer=True)
        check_range("temperature", self.temperature, 0, open_low=True)
        check_finite("temperature", self.temperature)
        check_levels(None, self.recurrences)

    def on(self, depth: DepthAxis, costs: CostModel) -> FixedPlan:
        """All samples."""
        level, temperature = level_of(depth, self.recurrences), float(self.temperature)
        return FixedPlan(grid_cells([level], [temperature] * self.n, depth.letter))
