"""Options of decoding, checked once when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from eglr_selectors.options import check_name, check_range

from lm_eval_eglr.decoding.depth import EXIT_RULES, MOST_ITERATIONS, UPDATE_RULES, ExitRule, check_exit

TOLERANCE = 1e-3
Noise = Literal["shared", "independent"]


@dataclass(frozen=True, slots=True)
class RecursionConfig:
    """How and where the top layers are applied again.

    Attributes:
        entropy_threshold: Gate τ, nats: a position is recursed iff the entropy of its plain next-token
            distribution exceeds it. ``inf`` never recurses.
        max_recursions: Most iterations K_max at a position, up to 1,024; 0 never recurses.
        tolerance: ε, nats, 1e-3 by default: stop when KL(p_k ‖ p_{k-1}) falls below it. The same as
            ``exit_threshold`` with ``exit=kl``.
        update: Input rule of an iteration: ``anchored``, ``damped`` or ``replace``; see
            :mod:`lm_eval_eglr.decoding.depth`.
        strength: α of the rules ``anchored`` and ``damped``, from 0 (the plain model) to 1.
        exit: What an iteration must have moved by less than a threshold for the position's iterations to
            end: ``kl`` the distribution, ``entropy`` its entropy, ``latent`` the state; ``none`` always makes
            ``max_recursions``.
        exit_threshold: By default ``tolerance``, 1e-3 nats and 0.03 of the state's norm.
    """

    entropy_threshold: float = 0.5
    max_recursions: int = 4
    tolerance: float | None = None
    update: str = "anchored"
    strength: float = 0.2
    exit: str = "kl"
    exit_threshold: float | None = None

    def __post_init__(self) -> None:
        check_range("entropy_threshold", self.entropy_threshold, 0)
        check_range("max_recursions", self.max_recursions, 0, MOST_ITERATIONS, integer=True)
        check_name("update", self.update, UPDATE_RULES)
        check_range("strength", self.strength, 0, 1)
        check_exit(self.exit, self.exit_threshold)
        if self.tolerance is None:
            return
        check_range("tolerance", self.tolerance, 0)
        if self.exit != "kl":
            raise ValueError(
                f"tolerance={self.tolerance!r}: the threshold of exit=kl, got exit={self.exit}; "
                "expected exit_threshold, or none"
            )
        if self.exit_threshold is not None:
            raise ValueError(
                f"tolerance={self.tolerance!r}: expected either this or "
                f"exit_threshold={self.exit_threshold!r}, which are the same for exit=kl"
            )

    @property
    def rule(self) -> ExitRule | None:
        """The rule of exit; ``None`` for none."""
        return EXIT_RULES.get(self.exit)

    @property
    def threshold(self) -> float:
        """The threshold of the rule; 0 without one."""
        if self.exit_threshold is not None:
            return self.exit_threshold
        if self.exit == "kl":
            return TOLERANCE if self.tolerance is None else self.tolerance
        return 0.0 if self.rule is None else self.rule.threshold


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """How the next token is drawn from a distribution, apart from its temperature.

    Truncation is transformers' own, in its order: top_k, top_p, min_p, all after the temperature.

    Attributes:
        top_p: Keep the smallest set of likeliest tokens whose mass reaches it; 1 keeps all.
        top_k: Keep that many likeliest tokens; 0 keeps all.
        min_p: Keep tokens at least this many times as likely as the likeliest; 0 keeps all.
        seed: Seed of all draws.
        noise: ``independent`` lets the span enter the seed; ``shared`` gives the cells of a temperature
            column the same uniforms whatever their span (common random numbers).
    """

    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    noise: Noise = "independent"

    def __post_init__(self) -> None:
        check_range("top_p", self.top_p, 0, 1, open_low=True)
        check_range("top_k", self.top_k, 0, integer=True)
        check_range("min_p", self.min_p, 0, 1)
        check_range("seed", self.seed, 0, integer=True)
        check_name("noise", self.noise, get_args(Noise))


@dataclass(frozen=True, slots=True)
class BranchingConfig:
    """When a rollout forks into several (EAGER, arXiv 2510.11170).

    Attributes:
        threshold: A rollout forks where the entropy of the next token, nats, exceeds it; ``inf`` never.
        width: Continuations at a fork: the token that was drawn, and the likeliest others.
        distance: Fewest tokens between two forks of one rollout.
        top_k: The entropy is that of so many likeliest tokens, their probabilities summing to 1.
        most: Most rollouts of one request.
    """

    threshold: float
    width: int
    distance: int
    top_k: int
    most: int
