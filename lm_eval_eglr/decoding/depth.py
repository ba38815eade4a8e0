"""The depth axis of the grid: what an iteration of a recursion is, and when the last one was made.

An axis says what its levels are, how many layers an iteration has and how many iterations there may be:
:class:`TopLayers` applies the top L layers again, by an update rule; the recurrent block of a model that has
one is iterated by :mod:`lm_eval_eglr.recurrent`. A rule of exit says how far an iteration has moved; the axes
share them.

To add an update rule, register a class of two pure functions under the name that users give, here or in a
module of your own. Source: Entropy-Gated Latent Recursion, arXiv 2606.16620, whose rule is not public;
damping and interpolation with the plain pass: arXiv 2605.23872 and 2602.14759; ``anchored`` with its
rescaling is this project's, see docs/method.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from eglr_selectors.cell import Axis
from eglr_selectors.options import check_finite, check_name, check_range
from torch import Tensor

from lm_eval_eglr.decoding.model.passes import Residuals
from lm_eval_eglr.decoding.numerics import (
    at_least_fp32,
    entropy,
    kl_divergence,
    on_device,
    together_on_device,
)

MOST_ITERATIONS = 1024
"""Of one token: 32 times what Huginn makes of its own. A token keeps keys and values of each recurrence."""


class UpdateRule(Protocol):
    """One rule; all tensors are ``[recursions, dim]``."""

    def input(self, strength: float, anchor: Tensor, hidden: Tensor) -> Tensor:
        """z_k, what the layers are applied to, from x_{N−L} (``anchor``) and h_{k−1} (``hidden``)."""

    def output(self, strength: float, previous: Tensor, applied: Tensor) -> Tensor:
        """h_k from h_{k−1} (``previous``) and f(z_k) (``applied``)."""


UPDATE_RULES: dict[str, UpdateRule] = {}


def update_rule(name: str) -> Callable[[type[UpdateRule]], type[UpdateRule]]:
    """Registers a rule: ``@update_rule("mine")`` makes ``update=mine`` an option."""

    def register(rule: type[UpdateRule]) -> type[UpdateRule]:
        UPDATE_RULES[name] = rule()
        return rule

    return register


@update_rule("anchored")
class Anchored:
    """z_k = (1−α) x_{N−L} + α h_{k−1} · rms(x_{N−L}) / rms(h_{k−1}); h_k = f(z_k)."""

    def input(self, strength: float, anchor: Tensor, hidden: Tensor) -> Tensor:
        """The mixture, in fp32 at least."""
        anchored, state = at_least_fp32(anchor), at_least_fp32(hidden)
        # Of two vectors of one length, the norms are to each other as the root mean squares.
        norm, wanted = _norm(state), _norm(anchored)
        scale = wanted / norm.clamp_min(1e-20)  # a state of zeros stays one
        return torch.lerp(anchored, state * scale, strength).to(anchor.dtype)

    def output(self, strength: float, previous: Tensor, applied: Tensor) -> Tensor:
        """The layers' output."""
        return applied


def _norm(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)


@update_rule("damped")
class Damped:
    """z_k = h_{k−1}; h_k = h_{k−1} + α (f(z_k) − h_{k−1})."""

    def input(self, strength: float, anchor: Tensor, hidden: Tensor) -> Tensor:
        """The last state."""
        return hidden

    def output(self, strength: float, previous: Tensor, applied: Tensor) -> Tensor:
        """A step of size α, in fp32 at least."""
        return torch.lerp(at_least_fp32(previous), at_least_fp32(applied), strength).to(applied.dtype)


@update_rule("replace")
class Replace:
    """z_k = h_{k−1}; h_k = f(z_k): the top layers are simply applied again."""

    def input(self, strength: float, anchor: Tensor, hidden: Tensor) -> Tensor:
        """The last state."""
        return hidden

    def output(self, strength: float, previous: Tensor, applied: Tensor) -> Tensor:
        """The layers' output."""
        return applied


class DepthAxis(Protocol):
    """What the levels of depth of a model are.

    Attributes:
        letter: How coordinates begin: ``L`` or ``R``.
        own: The level that is the model as it is.
        shares_rows: Whether cells of different levels that have drawn the same tokens share a row: a level
            then begins from a plain pass that all of them have.
        refusal: Why options of the other axis are refused; it names what is allowed.
    """

    @property
    def letter(self) -> Axis: ...

    @property
    def own(self) -> int: ...

    @property
    def shares_rows(self) -> bool: ...

    @property
    def refusal(self) -> str: ...

    @property
    def deepest(self) -> int | None:
        """The largest level; ``None`` if there is none."""

    def layers(self, level: int) -> int:
        """Layer applications of one iteration."""

    def most(self, level: int) -> int:
        """Iterations at most."""

    def work(self, level: int, iterations: int, tokens: int) -> tuple[int, int]:
        """Layers and heads that iterations over some tokens take, beyond what every token takes."""


@dataclass(frozen=True, slots=True)
class TopLayers:
    """The top L decoder layers applied again at the same position; L is the level, called span.

    Attributes:
        update: The update rule.
        strength: Its α.
        depth: Number N of layers.
        max_recursions: K_max.
        name: What the model is called where options are refused.
    """

    update: UpdateRule
    strength: float
    depth: int = 0
    max_recursions: int = 0
    name: str = "the model"

    letter: ClassVar[Axis] = "L"
    own: ClassVar[int] = 0
    shares_rows: ClassVar[bool] = True

    @property
    def refusal(self) -> str:
        """It has no recurrent block."""
        return (
            f"an option of recurrent-depth models, and {self.name} is not known as one; expected spans "
            "(or register an adapter, docs/tutorials/recurrent_depth.md)"
        )

    @property
    def deepest(self) -> int | None:
        """N."""
        return self.depth

    def begin(self, residuals: Residuals, rows: np.ndarray, levels: np.ndarray) -> tuple[Tensor, Tensor]:
        """x_{N−L} and x_N of recursions that continue rows of a pass, ``[recursions, dim]`` each."""

        def chosen(residual: Tensor, rows: Tensor) -> Tensor:
            return residual[:, -1].index_select(0, on_device(rows, residual.device))

        device = residuals.hidden.device
        if (levels == levels[0]).all():
            index = on_device(rows, device)
            states = chosen(residuals.hidden, index)
            return chosen(residuals.before(int(levels[0])), index).to(states), states
        order, back = np.argsort(levels, kind="stable"), np.empty_like(levels)
        back[order] = np.arange(len(order))
        distinct, counts = np.unique(levels, return_counts=True)
        index, by_level, places = together_on_device([rows, rows[order], back], device)
        states = chosen(residuals.hidden, index)
        parts = zip(distinct.tolist(), by_level.split(counts.tolist()), strict=True)
        anchors = [chosen(residuals.before(level), part).to(states) for level, part in parts]
        return torch.cat(anchors).index_select(0, places), states

    def input(self, anchors: Tensor, states: Tensor) -> Tensor:
        """z_k by the update rule: what the next iteration's layers are applied to, ``[recursions, dim]``."""
        return self.update.input(self.strength, anchors, states)

    def output(self, states: Tensor, applied: Tensor) -> Tensor:
        """h_k by the update rule, from h_{k−1} and what the layers made, ``[recursions, dim]``."""
        return self.update.output(self.strength, states, applied)

    def layers(self, level: int) -> int:
        """L."""
        return level

    def most(self, level: int) -> int:
        """K_max, at a gated token."""
        return self.max_recursions if level else 0

    def work(self, level: int, iterations: int, tokens: int) -> tuple[int, int]:
        """L layers and a head for each iteration."""
        return level * iterations, iterations


@dataclass(slots=True)
class Iterate:
    """Where an iteration has come to.

    Attributes:
        states: The states, ``[recursions, dim]``.
        logprobs: ln p of each, ``[recursions, vocab]``; ``None`` where they were not computed.
    """

    states: Tensor
    logprobs: Tensor | None


class ExitRule(Protocol):
    """When a recursion has converged: when what it moved by in an iteration falls below a threshold.

    Attributes:
        threshold: The threshold where users give none.
        reads_distributions: Whether a distance is one of distributions, which cost a head to compute.
    """

    threshold: float
    reads_distributions: bool

    def distance(self, now: Iterate, before: Iterate) -> Tensor:
        """How far an iteration moved each, ``[recursions]``."""

    def rounding(self, threshold: float, rounding: float) -> float:
        """How far rounding moves a distance near the threshold, if log-probabilities move by ``rounding``."""


EXIT_RULES: dict[str, ExitRule] = {}


def exit_rule(name: str) -> Callable[[type[ExitRule]], type[ExitRule]]:
    """Registers a rule: ``@exit_rule("mine")`` makes ``exit=mine`` an option."""

    def register(rule: type[ExitRule]) -> type[ExitRule]:
        EXIT_RULES[name] = rule()
        return rule

    return register


def check_exit(rule: str, threshold: float | None) -> None:
    """Checks a rule of exit and its threshold as users give them, ``None`` being the default.

    Raises:
        ValueError: For an unknown rule, a bad threshold, or one without a rule.
    """
    check_name("exit", rule, ("none", *EXIT_RULES))
    if threshold is None:
        return
    check_range("exit_threshold", threshold, 0)
    check_finite("exit_threshold", threshold)
    if rule == "none":
        raise ValueError(f"exit_threshold={threshold!r}: needs a rule, exit={', '.join(EXIT_RULES)}")


@exit_rule("kl")
class KLExit:
    """KL(p_k ‖ p_{k−1}), nats. Source: Huginn, arXiv 2502.05171; its code has a threshold of 1e-3."""

    threshold = 5e-4
    reads_distributions = True

    def distance(self, now: Iterate, before: Iterate) -> Tensor:
        """The divergence of each."""
        assert now.logprobs is not None
        assert before.logprobs is not None
        return kl_divergence(now.logprobs, before.logprobs)

    def rounding(self, threshold: float, rounding: float) -> float:
        """A divergence as small as the threshold moves by about r · √(8 KL); nothing is near to infinity."""
        return rounding * (8 * threshold) ** 0.5 if math.isfinite(threshold) else 0.0


@exit_rule("entropy")
class EntropyExit:
    """|H(p_k) − H(p_{k−1})|, nats; rule and threshold are those of Huginn's code."""

    threshold = 1e-3
    reads_distributions = True

    def distance(self, now: Iterate, before: Iterate) -> Tensor:
        """The difference of each."""
        assert now.logprobs is not None
        assert before.logprobs is not None
        return (entropy(now.logprobs) - entropy(before.logprobs)).abs()

    def rounding(self, threshold: float, rounding: float) -> float:
        """An entropy moves by about as much as its log-probabilities; two do."""
        return 2 * rounding


@exit_rule("latent")
class LatentExit:
    """‖s_k − s_{k−1}‖ / ‖s_k‖; rule and threshold are those of Huginn's code."""

    threshold = 0.03
    reads_distributions = False

    def distance(self, now: Iterate, before: Iterate) -> Tensor:
        """The relative change of each."""
        states, previous = at_least_fp32(now.states), at_least_fp32(before.states)
        tiny = torch.finfo(states.dtype).tiny
        return (states - previous).norm(dim=-1) / states.norm(dim=-1).clamp_min(tiny)

    def rounding(self, threshold: float, rounding: float) -> float:
        """What moves log-probabilities by that much has moved states by about as much, relatively."""
        return rounding
