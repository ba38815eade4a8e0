"""The strategies by name, with their options, checked once when they are made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lm_eval_eglr.decoding.config import RecursionConfig, check_choice, check_number
from lm_eval_eglr.decoding.grid import Items, parse_spans, parse_temperatures

Budget = Literal["none", "free", "labels"]
FreeBudget = Literal["none", "free"]
ANY_DEPTH = 10**6  # checks how spans are written before the model's depth is known


@dataclass(frozen=True, slots=True)
class Grid:
    """Every cell of the L × T grid.

    Attributes:
        spans: Spans L, layers; see :func:`lm_eval_eglr.decoding.grid.parse_spans`.
        temperatures: Temperatures; see :func:`lm_eval_eglr.decoding.grid.parse_temperatures`.
    """

    spans: Items | None = None
    temperatures: Items | None = None

    def __post_init__(self) -> None:
        parse_spans(self.spans, ANY_DEPTH)
        parse_temperatures(self.temperatures)


@dataclass(frozen=True, slots=True)
class Sample:
    """Independent samples of the plain model: full parallel sampling, the baseline of the others.

    Attributes:
        n: Rollouts per prompt; no greedy one is among them.
        temperature: Their temperature.
    """

    n: int = 16
    temperature: float = 0.7

    def __post_init__(self) -> None:
        check_number("n", self.n, 1, integer=True)
        check_number("temperature", self.temperature, 0, open_low=True)
        _check_finite("temperature", self.temperature)


@dataclass(frozen=True, slots=True)
class Eager:
    """Rollouts that fork where the model is uncertain (EAGER, arXiv 2510.11170).

    Attributes:
        n: M, most rollouts per prompt in the first round, and its budget.
        temperature: At which tokens are drawn; 0 is greedy.
        branch_threshold: A rollout forks where the entropy of the next token, nats, exceeds it.
        branch_width: Continuations at a fork, the drawn one included.
        min_branch_distance: Fewest tokens between two forks of one rollout.
        branch_top_k: The entropy is that of so many likeliest tokens, renormalised.
        budget: Who gets in a second round what prompts have left of their n rollouts: ``none``: nobody;
            ``free``: prompts that used theirs up and could have forked further; ``labels``: prompts that
            no rollout has solved, which looks at the reference.
        max_rollouts: Most rollouts of one prompt over both rounds; twice n by default.
    """

    n: int = 16
    temperature: float = 0.0
    branch_threshold: float = 2.0
    branch_width: int = 2
    min_branch_distance: int = 1
    branch_top_k: int = 20
    budget: Budget = "free"
    max_rollouts: int | None = None

    def __post_init__(self) -> None:
        check_number("n", self.n, 1, integer=True)
        check_number("temperature", self.temperature, 0)
        _check_finite("temperature", self.temperature)
        check_number("branch_threshold", self.branch_threshold, 0)
        check_number("branch_width", self.branch_width, 2, integer=True)
        check_number("min_branch_distance", self.min_branch_distance, 1, integer=True)
        check_number("branch_top_k", self.branch_top_k, 2, integer=True)
        check_choice("budget", self.budget, Budget)
        if self.max_rollouts is not None:
            check_number("max_rollouts", self.max_rollouts, self.n, integer=True)

    @property
    def most(self) -> int:
        """Most rollouts of one prompt over both rounds."""
        if self.budget == "none":
            return self.n
        return 2 * self.n if self.max_rollouts is None else self.max_rollouts


@dataclass(frozen=True, slots=True)
class AdaptiveGrid:
    """The L × T grid opened a few cells at a time until the vote is decided (this project).

    Attributes:
        spans: Spans L, layers.
        temperatures: Temperatures.
        n: Budget of a prompt, rollouts; half of the grid by default.
        wave: Cells opened at a time.
        vote_threshold: The vote is decided as in the selector ``adaptive``: at this probability that the
            leading answer stays ahead of the second.
        budget: ``free`` gives what decided prompts leave of their n to undecided ones; ``none`` does not.
    """

    spans: Items | None = None
    temperatures: Items | None = None
    n: int | None = None
    wave: int = 4
    vote_threshold: float = 0.95
    budget: FreeBudget = "free"

    def __post_init__(self) -> None:
        parse_spans(self.spans, ANY_DEPTH)
        parse_temperatures(self.temperatures)
        if self.n is not None:
            check_number("n", self.n, 1, integer=True)
        check_number("wave", self.wave, 1, integer=True)
        check_number("vote_threshold", self.vote_threshold, 0.5, 1)
        check_choice("budget", self.budget, FreeBudget)


Strategy = Grid | Sample | Eager | AdaptiveGrid
STRATEGIES: dict[str, type[Strategy]] = {
    "grid": Grid,
    "sample": Sample,
    "eager": Eager,
    "adaptive_grid": AdaptiveGrid,
}
OPTIONS = {name: tuple(field.name for field in dataclasses.fields(kind)) for name, kind in STRATEGIES.items()}
STRATEGY_OPTIONS = tuple(dict.fromkeys(option for options in OPTIONS.values() for option in options))
WITHOUT_RECURSION = ("sample", "eager")
_RECURSION = tuple(field.name for field in dataclasses.fields(RecursionConfig))


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
        if key in OPTIONS[name]:
            own[key] = value
            continue
        owners = [other for other, known in OPTIONS.items() if key in known]
        if key in _RECURSION and name in WITHOUT_RECURSION:
            owners = [other for other in STRATEGIES if other not in WITHOUT_RECURSION]
        if owners:
            allowed = ", ".join(OPTIONS[name])
            raise ValueError(
                f"{key}={value!r}: an option of strategy={' or '.join(owners)}; "
                f"strategy={name} takes {allowed}"
            )
        rest[key] = value
    return STRATEGIES[name](**own), rest


def strategy_name(strategy: Strategy) -> str:
    """The name under which a strategy is asked for."""
    return next(name for name, kind in STRATEGIES.items() if isinstance(strategy, kind))


def _check_finite(name: str, value: float) -> None:
    if value == math.inf:
        raise ValueError(f"{name}={value!r}: expected a finite number")
