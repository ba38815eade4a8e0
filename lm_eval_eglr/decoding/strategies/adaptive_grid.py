"""The grid opened a few cells at a time, the most promising for their cost first, until the vote is decided.

This project. The stopping rule is the Beta criterion of Adaptive-Consistency (arXiv 2305.11860).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, get_args

from eglr_selectors import ParsedPool
from eglr_selectors.builtin.sequential import settled
from eglr_selectors.options import check_name, check_range
from eglr_selectors.pool import Cell, RolloutPool

from lm_eval_eglr.decoding.depth import DepthAxis
from lm_eval_eglr.decoding.request import CostModel, Request
from lm_eval_eglr.decoding.strategies.grid import (
    Items,
    check_levels,
    grid_cells,
    levels_of,
    parse_temperatures,
)
from lm_eval_eglr.decoding.strategies.strategy import Budget, FreeBudget, strategy

GATED_SHARE = 0.2
ITERATIONS = 2.0
"""What a recursed cell is expected to do before any was run: every fifth token, twice (docs/method.md)."""


@strategy("adaptive_grid")
@dataclass(frozen=True, slots=True)
class AdaptiveGrid:
    """The L × T grid opened a few cells at a time until the vote is decided (this project).

    Attributes:
        spans: Spans L, layers.
        recurrences: Iterations of a recurrent-depth model, in place of spans.
        temperatures: Temperatures.
        n: Budget of a prompt, rollouts; half of the grid by default.
        wave: Cells opened at a time.
        vote_threshold: The vote is decided as in the selector ``adaptive``: at this probability that the
            leading answer stays ahead of the second.
        budget: ``free`` gives what decided prompts leave of their n to undecided ones; ``none`` does not.
    """

    recurses: ClassVar[bool] = True

    spans: Items | None = None
    temperatures: Items | None = None
    n: int | None = None
    wave: int = 4
    vote_threshold: float = 0.95
    budget: FreeBudget = "free"
    recurrences: Items | None = None

    def __post_init__(self) -> None:
        check_levels(self.spans, self.recurrences)
        parse_temperatures(self.temperatures)
        if self.n is not None:
            check_range("n", self.n, 1, integer=True)
        check_range("wave", self.wave, 1, integer=True)
        check_range("vote_threshold", self.vote_threshold, 0.5, 1)
        check_name("budget", self.budget, get_args(FreeBudget))

    def on(self, depth: DepthAxis, costs: CostModel) -> AdaptivePlan:
        """The grid, closed."""
        levels = levels_of(depth, self.spans, self.recurrences)
        cells = grid_cells(levels, parse_temperatures(self.temperatures), depth.letter)
        return AdaptivePlan(self, cells, costs, depth)


def opening_order(cells: Sequence[Cell], costs: CostModel, depth: DepthAxis) -> list[Cell]:
    """The cells by expected gain per operation, after greedy decoding by the model as it is.

    A cell is expected to gain 1 / ((1 + a) (1 + b)): a counts the opened cells of its temperature and
    sample, whose draws it may share, b those of its span, whose mistakes it may share. It is a prior, the
    same for every prompt: nothing is known of a prompt before its first answers. Its cost is that of a
    token of its span with ``GATED_SHARE`` and ``ITERATIONS``, or with all of its recurrences. The first in
    grid order wins a tie.
    """
    waiting = list(cells)
    order: list[Cell] = []
    columns: Counter[tuple[float | None, int]] = Counter()
    spans: Counter[int] = Counter()

    def worth(cell: Cell) -> float:
        if not order and (cell.span, cell.temperature) == (depth.own, 0.0):
            return float("inf")
        gain = 1 / ((1 + columns[cell.temperature, cell.sample]) * (1 + spans[cell.span]))
        plain = costs.flops(costs.depth, 1)
        if cell.axis == "R":
            made = (depth.most(cell.span) - depth.most(depth.own)) * depth.layers(cell.span)
            return gain * plain / (plain + costs.flops(made, 0))
        recursed = GATED_SHARE * ITERATIONS if cell.span else 0.0
        return gain * plain / (plain + recursed * costs.flops(cell.span, 1))

    while waiting:
        best = max(waiting, key=worth)  # the first of equals
        waiting.remove(best)
        order.append(best)
        columns[best.temperature, best.sample] += 1
        spans[best.span] += 1
    return order


@dataclass(frozen=True, slots=True)
class AdaptivePlan:
    """The adaptive grid with its options.

    Raises:
        ValueError: If the budget is larger than the grid.
    """

    options: AdaptiveGrid
    cells: tuple[Cell, ...]
    costs: CostModel
    depth: DepthAxis
    order: tuple[Cell, ...] = field(init=False)
    reads: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        if self.options.n is not None and self.options.n > len(self.cells):
            raise ValueError(f"n={self.options.n}: expected at most the {len(self.cells)} cells of the grid")
        object.__setattr__(self, "order", tuple(opening_order(self.cells, self.costs, self.depth)))

    @property
    def rows(self) -> int:
        """A wave of cells."""
        return min(self.options.wave, len(self.cells))

    @property
    def own(self) -> int:
        """The prompt's own budget, rollouts."""
        return (len(self.cells) + 1) // 2 if self.options.n is None else self.options.n

    @property
    def budget(self) -> Budget:
        """Who gets what is left."""
        return self.options.budget

    @property
    def has_more_rounds(self) -> bool:
        """There are waves."""
        return self.own > self.rows

    def first_request(self, request: Request) -> Request:
        """The first wave."""
        return self._wave(request, self.order, self.own)

    def next_requests(
        self, request: Request, pool: RolloutPool, parsed: ParsedPool | None, count: int
    ) -> list[Request]:
        """The next wave, unless the vote is decided."""
        assert parsed is not None
        opened = {rollout.cell for rollout in pool}
        closed = [cell for cell in self.order if cell not in opened]
        if not closed or count < 1 or self._decided(parsed):
            return []
        return [self._wave(request, closed, count)]

    def wants(self, request: Request, pool: RolloutPool, parsed: ParsedPool | None) -> int:
        """The rest of the grid, as long as the vote is not decided."""
        assert parsed is not None
        return 0 if self._decided(parsed) else len(self.cells) - len(pool)

    def merge(self, pools: Sequence[RolloutPool]) -> RolloutPool:
        """The rollouts in grid order, whenever they were opened."""
        places = {cell: place for place, cell in enumerate(self.cells)}
        rollouts = sorted((rollout for pool in pools for rollout in pool), key=lambda r: places[r.cell])
        return replace(pools[0], rollouts=tuple(rollouts))

    def _wave(self, request: Request, closed: Sequence[Cell], count: int) -> Request:
        return replace(request, cells=tuple(closed[: min(self.options.wave, count)]))

    def _decided(self, parsed: ParsedPool) -> bool:
        counts = Counter(number for number in parsed.classes if number >= 0)
        return bool(counts) and settled(counts) >= self.options.vote_threshold
