"""Entropy-gated latent recursion: the gate's entropy, the update rules and the measure of convergence.

Source: Entropy-Gated Latent Recursion, arXiv 2606.16620. Its update rule and thresholds are not public;
the rules here and their defaults are this project's, see docs/method.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lm_eval_eglr.decoding.config import Update
from lm_eval_eglr.decoding.precision import at_least_fp32
from lm_eval_eglr.decoding.row_blocks import by_blocks


def entropy(logprobs: Tensor) -> Tensor:
    """H(p) = -Σ p ln p in nats: ``[..., vocab]`` to ``[...]``. Impossible tokens count 0."""
    # Clamped, because 0 times minus infinity is not a number; a NaN stays one.
    low = torch.finfo(logprobs.dtype).min
    return by_blocks(lambda rows: -torch.linalg.vecdot(rows.exp(), rows.clamp_min(low)), logprobs)


def kl_divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (ln p − ln q) in nats, ``logprobs`` is ln p: ``[..., vocab]`` to ``[...]``."""
    low = torch.finfo(logprobs.dtype).min

    def divergence(rows: Tensor, other: Tensor) -> Tensor:
        return torch.linalg.vecdot(rows.exp(), rows.clamp_min(low) - other.clamp_min(low)).clamp_min(0.0)

    return by_blocks(divergence, logprobs, reference)


def rms(hidden: Tensor) -> Tensor:
    """Root mean square over the last dimension, kept, in fp32 at least: ``[..., dim]`` to ``[..., 1]``."""
    return at_least_fp32(hidden).square().mean(-1, keepdim=True).sqrt()


def recursion_input(update: Update, strength: float, anchor: Tensor, hidden: Tensor) -> Tensor:
    """z_k, what the top layers are applied to in iteration k.

    ``replace`` and ``damped``: h_{k−1}.
    ``anchored``: (1−α) x_{N−L} + α h_{k−1} · rms(x_{N−L}) / rms(h_{k−1}).

    Args:
        anchor: x_{N−L}, the span's input in the plain pass, ``[items, dim]``.
        hidden: h_{k−1}, ``[items, dim]``.
    """
    if update != "anchored":
        return hidden
    scale = rms(anchor) / rms(hidden).clamp_min(torch.finfo(torch.float32).tiny)
    mixed = (1 - strength) * at_least_fp32(anchor) + strength * at_least_fp32(hidden) * scale
    return mixed.to(anchor.dtype)


def recursion_output(update: Update, strength: float, previous: Tensor, applied: Tensor) -> Tensor:
    """h_k from h_{k−1} and f(z_k). ``damped``: h_{k−1} + α (f(z_k) − h_{k−1}); the others: f(z_k)."""
    if update != "damped":
        return applied
    return torch.lerp(at_least_fp32(previous), at_least_fp32(applied), strength).to(applied.dtype)
