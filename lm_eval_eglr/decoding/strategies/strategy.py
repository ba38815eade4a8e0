"""What a strategy is: its options, and how a prompt begins, goes on and is done.

A strategy is a frozen dataclass of options, registered under the name that users give, which makes its
plan on a model. It lives in a file of its own in this folder, and every file here is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from eglr_selectors import ParsedPool
from eglr_selectors.pool import Cell, RolloutPool

from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.request import CostModel, Request

Budget = Literal["none", "free", "labels"]
FreeBudget = Literal["none", "free"]
_RECURSION = tuple(field.name for field in dataclasses.fields(RecursionConfig))


class DecodingPlan(Protocol):
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
        """Recipients of unused budget."""

    @property
    def reads(self) -> bool:
        """Whether the pool's answers must be read to go on."""

    @property
    def has_more_rounds(self) -> bool:
        """Whether a prompt may get more requests before the budget is shared than its first."""

    def first_request(self, request: Request) -> Request:
        """The first request of a prompt; ``request`` has all of :attr:`cells`."""

    def next_requests(
        self, request: Request, pool: RolloutPool, parsed: ParsedPool | None, count: int
    ) -> list[Request]:
        """The next requests of a prompt, for at most ``count`` rollouts more; none if it is done."""

    def wants(self, request: Request, pool: RolloutPool, parsed: ParsedPool | None) -> int:
        """How many rollouts more it would take, once its own budget is used."""

    def merge(self, pools: Sequence[RolloutPool]) -> RolloutPool:
        """One pool of all rollouts; the cost is the first part's."""


class Strategy(Protocol):
    """The options of a strategy, checked when they are made."""

    recurses: ClassVar[bool]  # whether the options of the recursion are for it, too

    def on(self, depth: int, costs: CostModel) -> DecodingPlan:
        """The strategy on a model of so many layers.

        Raises:
            ValueError: If a span is deeper than the model, or a budget larger than the grid.
        """


STRATEGIES: dict[str, type[Any]] = {}
Kind = TypeVar("Kind", bound=type)


def strategy(name: str) -> Callable[[Kind], Kind]:
    """Registers a strategy: ``@strategy("mine")`` makes ``strategy=mine`` an option."""

    def register(kind: Kind) -> Kind:
        STRATEGIES[name] = kind
        return kind

    return register


def options_of(name: str) -> tuple[str, ...]:
    """The options of a strategy."""
    return tuple(field.name for field in dataclasses.fields(STRATEGIES[name]))


def read_strategy(name: str, options: Mapping[str, Any]) -> tuple[Strategy, dict[str, Any]]:
    """Makes a strategy of its name and its options among all that were given.

    Returns:
        The strategy, and the options that are of no strategy.

    Raises:
        ValueError: If the name is unknown, a value is wrong, or an option is of another strategy only.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy={name!r}: expected one of {', '.join(STRATEGIES)}")
    own: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in options.items():
        if key in options_of(name):
            own[key] = value
            continue
        owners = [other for other in STRATEGIES if key in options_of(other)]
        if key in _RECURSION and not STRATEGIES[name].recurses:
            owners = [other for other, kind in STRATEGIES.items() if kind.recurses]
        if owners:
            allowed = ", ".join(options_of(name))
            raise ValueError(
                f"{key}={value!r}: an option of strategy={' or '.join(owners)}; "
                f"strategy={name} takes {allowed}"
            )
        rest[key] = value
    return STRATEGIES[name](**own), rest


def strategy_name(chosen: Strategy) -> str:
    """The name under which a strategy is asked for."""
    return next(name for name, kind in STRATEGIES.items() if isinstance(chosen, kind))
