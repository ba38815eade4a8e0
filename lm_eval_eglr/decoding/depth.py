"""The depth axis of the grid: what an iteration of a recursion is, and when the last one was made.

An axis is an object that says how a level of depth begins and goes on; :class:`TopLayers` applies the top L
layers again. A rule of exit says how far an iteration has moved; recursions of every axis may share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lm_eval_eglr.decoding.model.passes import Residuals
from lm_eval_eglr.decoding.numerics import kl_divergence
from lm_eval_eglr.decoding.updates import UpdateRule


class DepthAxis(Protocol):
    """What an iteration is; levels of depth are integers, 0 is the plain model."""

    def begin(self, residuals: Residuals, rows: np.ndarray, levels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Anchors and first states of recursions that continue rows of a pass, ``[recursions, dim]`` each."""

    def input(self, anchors: Tensor, states: Tensor) -> Tensor:
        """What the next iteration is applied to, ``[recursions, dim]``."""

    def output(self, states: Tensor, applied: Tensor) -> Tensor:
        """The next states from those before and what the iteration's layers made, ``[recursions, dim]``."""

    def layers(self, level: int) -> int:
        """Layer applications of one iteration."""


@dataclass(frozen=True, slots=True)
class TopLayers:
    """The top L decoder layers applied again at the same position; L is the level, called span.

    Attributes:
        update: The update rule.
        strength: Its α.
    """

    update: UpdateRule
    strength: float

    def begin(self, residuals: Residuals, rows: np.ndarray, levels: np.ndarray) -> tuple[Tensor, Tensor]:
        """x_{N−L} and x_N of each."""
        hidden = residuals.hidden
        index = torch.from_numpy(rows).to(hidden.device)
        states = hidden[:, -1].index_select(0, index)
        anchors = torch.empty_like(states)
        for level in np.unique(levels):
            places = np.flatnonzero(levels == level)
            before = residuals.before(int(level))[:, -1]
            chosen = before.index_select(0, torch.from_numpy(rows[places]).to(before.device))
            anchors[torch.from_numpy(places).to(anchors.device)] = chosen.to(states)
        return anchors, states

    def input(self, anchors: Tensor, states: Tensor) -> Tensor:
        """z_k by the update rule."""
        return self.update.input(self.strength, anchors, states)

    def output(self, states: Tensor, applied: Tensor) -> Tensor:
        """h_k by the update rule."""
        return self.update.output(self.strength, states, applied)

    def layers(self, level: int) -> int:
        """L."""
        return level


class ExitRule(Protocol):
    """When a recursion has converged: when what it moved by in an iteration falls below the tolerance."""

    def distance(self, logprobs: Tensor, previous: Tensor) -> Tensor:
        """How far an iteration moved the distributions, ``[recursions, vocab]`` to ``[recursions]``."""

    def rounding(self, tolerance: float, rounding: float) -> float:
        """How far rounding moves a distance near the tolerance, if log-probabilities move by ``rounding``."""


class KLExit:
    """KL(p_k ‖ p_{k−1}), nats. Source: Huginn, arXiv 2502.05171."""

    def distance(self, logprobs: Tensor, previous: Tensor) -> Tensor:
        """The divergence of each."""
        return kl_divergence(logprobs, previous)

    def rounding(self, tolerance: float, rounding: float) -> float:
        """A divergence as small as the tolerance moves by about r · √(8 KL)."""
        return rounding * (8 * tolerance) ** 0.5
