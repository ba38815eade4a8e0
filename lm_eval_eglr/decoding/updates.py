"""The update rules: what the top layers are applied to in an iteration, and what becomes of their output.

A rule is an object with two pure functions, registered under the name that users give. To add one, write it
here, or register it from a module of your own. Source: Entropy-Gated Latent Recursion, arXiv 2606.16620, whose
rule is not public; damping and interpolation with the plain pass: arXiv 2605.23872 and 2602.14759; ``anchored``
with its rescaling is this project's, see docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from lm_eval_eglr.decoding.numerics import at_least_fp32, rms


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
        scale = rms(anchor) / rms(hidden).clamp_min(torch.finfo(torch.float32).tiny)
        mixed = (1 - strength) * at_least_fp32(anchor) + strength * at_least_fp32(hidden) * scale
        return mixed.to(anchor.dtype)

    def output(self, strength: float, previous: Tensor, applied: Tensor) -> Tensor:
        """The layers' output."""
        return applied


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
