"""What a strategy is to the scheduler of rounds: how a prompt begins, goes on, and when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from eglr_selectors import ParsedPool
from eglr_selectors.pool import Cell, RolloutPool

from lm_eval_eglr.decoding.request import Request
from lm_eval_eglr.decoding.strategies.options import Budget


class Course(Protocol):
    """A strategy on one model. Its answers depend on nothing but the request and the pool so far."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that are known beforehand."""

    @property
    def rows(self) -> int:
        """Most rows that one of its requests needs."""

    @property
    def own(self) -> int:
        """Rollouts that a prompt may have before the budget is shared."""

    @property
    def budget(self) -> Budget:
        """Who gets what is left of it."""

    @property
    def reads(self) -> bool:
        """Whether the pool's answers must be read to go on."""

    @property
    def goes_on(self) -> bool:
        """Whether a prompt may get more requests before the budget is shared than its first."""

    def begin(self, request: Request) -> Request:
        """The first request of a prompt; ``request`` has all of :attr:`cells`."""

    def go_on(
        self, request: Request, pool: RolloutPool, parsed: ParsedPool | None, count: int
    ) -> list[Request]:
        """The next requests of a prompt, for at most ``count`` rollouts more; none if it is done."""

    def wants(self, request: Request, pool: RolloutPool, parsed: ParsedPool | None) -> int:
        """How many rollouts more it would take, once its own budget is used."""

    def in_order(self, pools: Sequence[RolloutPool]) -> RolloutPool:
        """One pool of all rollouts; the cost is the first part's."""
