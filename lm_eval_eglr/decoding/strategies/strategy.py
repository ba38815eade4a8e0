"""What a strategy is: its options, and how a prompt begins, goes on and is done.

A strategy is a frozen dataclass of options, registered under the name that users give, which makes its
plan on a model. It lives in a file of its own in this folder, and every file here is imported.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

from eglr_selectors import ParsedPool
from eglr_selectors.pool import Cell, RolloutPool

from lm_eval_eglr.decoding.config import RecursionConfig, SamplingConfig
from lm_eval_eglr.decoding.depth import DepthAxis
from lm_eval_eglr.decoding.request import CostModel, Request
from lm_eval_eglr.recurrent.config import RecurrentConfig

Budget = Literal["none", "free", "labels"]
FreeBudget = Literal["none", "free"]
RECURSION_OPTIONS = tuple(field.name for field in dataclasses.fields(RecursionConfig))
RECURRENT_OPTIONS = tuple(field.name for field in dataclasses.fields(RecurrentConfig))
DEPTH_OPTIONS = frozenset(RECURSION_OPTIONS) & frozenset(RECURRENT_OPTIONS)  # of both axes
SAMPLING_OPTIONS = tuple(field.name for field in dataclasses.fields(SamplingConfig))
CONSTRUCTOR_OPTIONS = (
    *("strategy", "max_rows", "max_length", "share", "trace", "cuda_graphs", "compile_layers"),
)
REMOVED_OPTIONS = ("kv",)  # still accepted with the value that is left, with a warning


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

    def on(self, depth: DepthAxis, costs: CostModel) -> DecodingPlan:
        """The strategy on a model with such a depth axis.

        Raises:
            ValueError: If a level is none of the model, or a budget larger than the grid.
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


def unset_by_default() -> frozenset[str]:
    """Options whose default is that nobody has given them."""
    kinds = (*STRATEGIES.values(), RecursionConfig, RecurrentConfig, SamplingConfig)
    return frozenset(
        field.name for kind in kinds for field in dataclasses.fields(kind) if field.default is None
    )


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
        if key in RECURSION_OPTIONS and key not in DEPTH_OPTIONS and not STRATEGIES[name].recurses:
            owners = _that_recurse()
        if owners:
            allowed = ", ".join(options_of(name))
            raise ValueError(
                f"{key}={value!r}: an option of strategy={' or '.join(owners)}; "
                f"strategy={name} takes {allowed}"
            )
        rest[key] = value
    return STRATEGIES[name](**own), rest


def _that_recurse() -> list[str]:
    return [name for name, kind in STRATEGIES.items() if kind.recurses]


def strategy_name(chosen: Strategy) -> str:
    """The name under which a strategy is asked for."""
    return next(name for name, kind in STRATEGIES.items() if isinstance(chosen, kind))


class Options(NamedTuple):
    """Options by name, sorted out and checked.

    Attributes:
        strategy: The strategy with its options.
        recursion: How top layers are applied again.
        sampling: How tokens are drawn.
        recurrent: How a recurrent block is iterated.
        given: The names that were given.
    """

    strategy: Strategy
    recursion: RecursionConfig
    sampling: SamplingConfig
    recurrent: RecurrentConfig
    given: frozenset[str]

    def check_axis(self, depth: DepthAxis) -> None:
        """Refuses options of the depth axis that a model does not have.

        Raises:
            ValueError: If one was given.
        """
        others = RECURSION_OPTIONS if depth.letter == "R" else RECURRENT_OPTIONS
        for name in sorted(self.given.intersection(others) - DEPTH_OPTIONS):
            raise ValueError(f"{name}: {depth.refusal}")
        if depth.letter == "L" and not self.strategy.recurses:
            for name in sorted(self.given & DEPTH_OPTIONS):
                raise ValueError(
                    f"{name}: an option of strategy={' or '.join(_that_recurse())} on this model; "
                    f"strategy={strategy_name(self.strategy)} applies no layers again"
                )


def read_options(strategy: str, options: Mapping[str, Any]) -> Options:
    """Makes the strategy and the configurations from options by name; ``None`` was not given.

    Raises:
        ValueError: If an option is in none of them, or a value is wrong.
    """
    given = {key: value for key, value in options.items() if value is not None}
    _check_removed(given.pop("kv", None))
    chosen, options = read_strategy(strategy, given)
    known = (*RECURSION_OPTIONS, *SAMPLING_OPTIONS, *RECURRENT_OPTIONS)
    for key, value in options.items():
        if key not in known:
            of_strategies = dict.fromkeys(option for name in STRATEGIES for option in options_of(name))
            allowed = ", ".join(sorted({*CONSTRUCTOR_OPTIONS, *of_strategies, *known}))
            raise ValueError(f"{key}={value!r}: unknown option; expected one of {allowed}")

    def of(names: Sequence[str]) -> dict[str, Any]:
        return {key: value for key, value in options.items() if key in names}

    return Options(
        chosen,
        RecursionConfig(**of(RECURSION_OPTIONS)),
        SamplingConfig(**of(SAMPLING_OPTIONS)),
        RecurrentConfig(**of(RECURRENT_OPTIONS)),
        frozenset(given),
    )


def _check_removed(kv: Any) -> None:
    """Warns of ``kv="keep"``, and refuses any other cache policy."""
    if kv is None:
        return
    if kv != "keep":
        raise ValueError(
            f"kv={kv!r}: expected keep, or no kv at all; overwrite was removed, since it cost 1.6 times the "
            "FLOPs and was not better (docs/results.md)"
        )
    warnings.warn("kv='keep' is what always happens, and the option will go", FutureWarning, stacklevel=4)
