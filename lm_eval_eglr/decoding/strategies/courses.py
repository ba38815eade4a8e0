"""Strategies on a model: the grid and plain samples here, the others in files of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eglr_selectors import ParsedPool
from eglr_selectors.pool import Cell, RolloutPool

from lm_eval_eglr.decoding.costs import CostModel
from lm_eval_eglr.decoding.grid import grid_cells, parse_spans, parse_temperatures
from lm_eval_eglr.decoding.request import Request
from lm_eval_eglr.decoding.strategies.adaptive_grid import AdaptiveCourse
from lm_eval_eglr.decoding.strategies.course import Course
from lm_eval_eglr.decoding.strategies.eager import EagerCourse
from lm_eval_eglr.decoding.strategies.options import Budget, Eager, Grid, Sample, Strategy


@dataclass(frozen=True, slots=True)
class FixedCourse:
    """All cells at once, whatever comes of them."""

    cells: tuple[Cell, ...]
    budget: Budget = "none"
    reads: bool = False
    goes_on: bool = False

    @property
    def rows(self) -> int:
        """Every cell may need a row."""
        return len(self.cells)

    @property
    def own(self) -> int:
        """All rollouts."""
        return len(self.cells)

    def begin(self, request: Request) -> Request:
        """The request as it is."""
        return request

    def go_on(
        self, request: Request, pool: RolloutPool, parsed: ParsedPool | None, count: int
    ) -> list[Request]:
        """Nothing."""
        return []

    def wants(self, request: Request, pool: RolloutPool, parsed: ParsedPool | None) -> int:
        """Nothing."""
        return 0

    def in_order(self, pools: Sequence[RolloutPool]) -> RolloutPool:
        """The only pool."""
        return pools[0]


def course_of(strategy: Strategy, depth: int, costs: CostModel) -> Course:
    """Puts a strategy on a model.

    Args:
        strategy: The strategy.
        depth: Number of decoder layers.
        costs: What tokens of the model cost.

    Raises:
        ValueError: If a span is deeper than the model, or a budget larger than the grid.
    """
    if isinstance(strategy, Sample):
        return FixedCourse(tuple(Cell(0, float(strategy.temperature), i) for i in range(strategy.n)))
    if isinstance(strategy, Eager):
        return EagerCourse(strategy)
    cells = grid_cells(parse_spans(strategy.spans, depth), parse_temperatures(strategy.temperatures))
    return FixedCourse(cells) if isinstance(strategy, Grid) else AdaptiveCourse(strategy, cells, costs)
