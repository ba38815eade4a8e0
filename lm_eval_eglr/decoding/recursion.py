"""Entropy-gated latent recursion: the gate, the update rules and the loop until convergence.

Source: Entropy-Gated Latent Recursion, arXiv 2606.16620. Its update rule and thresholds are not public;
the rules here and their defaults are this project's, see docs/method.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lm_eval_eglr.decoding.config import RecursionConfig, Update
from lm_eval_eglr.decoding.layer_stack import LayerStack
from lm_eval_eglr.decoding.precision import at_least_fp32
from lm_eval_eglr.decoding.row_cache import RowCache


def entropy(logprobs: Tensor) -> Tensor:
    """H(p) = -Σ p ln p in nats: ``[..., vocab]`` to ``[...]``. Impossible tokens count 0."""
    # Clamped, because 0 times minus infinity is not a number; a NaN stays one.
    return -torch.linalg.vecdot(logprobs.exp(), logprobs.clamp_min(torch.finfo(logprobs.dtype).min))


def kl_divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (ln p − ln q) in nats, ``logprobs`` is ln p: ``[..., vocab]`` to ``[...]``."""
    low = torch.finfo(logprobs.dtype).min
    difference = logprobs.clamp_min(low) - reference.clamp_min(low)
    return torch.linalg.vecdot(logprobs.exp(), difference).clamp_min(0.0)


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


@dataclass(frozen=True, slots=True)
class Refinement:
    """What the recursion made of each item's distribution.

    Attributes:
        logprobs: ln p_k of the last iteration, ``[items, vocab]``, fp32.
        iterations: Iterations run per item.
        converged: Whether the tolerance was met, per item.
        divergences: KL(p_k ‖ p_{k−1}) per iteration and item, nats.
    """

    logprobs: Tensor
    iterations: list[int]
    converged: list[bool]
    divergences: list[list[float]]


def recurse(
    stack: LayerStack,
    cache: RowCache,
    logprobs: Tensor,
    spans: Sequence[int],
    rows: Tensor,
    slots: Tensor,
    positions: Tensor,
    config: RecursionConfig,
) -> Refinement:
    """Applies the top layers to each item until its distribution converges, at most K_max times.

    An item leaves as soon as it has converged, and no item sees another: what else is in the batch
    changes nothing but rounding.

    Args:
        stack: Holds the plain pass that has just run.
        cache: Holds the past of every row.
        logprobs: ln p_0 per item, ``[items, vocab]``.
        spans: L ≥ 1 per item.
        rows: Row of the plain pass that each item continues, ``[items]``.
        slots: Row of the cache that each item attends to, ``[items]``; equal to ``rows`` under ``keep``.
        positions: Position of each item, ``[items]``.
        config: Rule, strength, tolerance, K_max and cache policy.
    """
    # Deepest first, so that the items of a staircase that have joined are a prefix.
    order = sorted(range(len(spans)), key=lambda item: -spans[item])
    width = cache.width
    x_n = stack.hidden[:, -1]
    anchors = torch.stack([stack.layer_input(spans[i])[rows[i], -1].to(x_n.device) for i in order])
    hidden = x_n[rows[order].to(x_n.device)]
    result = logprobs.clone()
    iterations = [0] * len(spans)
    converged = [False] * len(spans)
    divergences: list[list[float]] = [[] for _ in spans]

    active = torch.arange(len(spans))  # places in `order`
    for _ in range(config.max_recursions):
        items = [order[place] for place in active.tolist()]
        z = recursion_input(config.update, config.strength, anchors[active], hidden[active])
        cache.begin_items(slots[items], positions[items], width, writes=config.kv == "overwrite")
        stack.begin_rows()
        applied = stack.apply_top(z, [spans[item] for item in items], rows[items], cache)
        applied = recursion_output(config.update, config.strength, hidden[active], applied.to(hidden.device))
        hidden[active] = applied
        refined = stack.logits(applied).log_softmax(-1).to(result.device)
        steps = kl_divergence(refined, result[items]).tolist()
        result[items] = refined
        for item, step in zip(items, steps, strict=True):
            iterations[item] += 1
            divergences[item].append(step)
            converged[item] = step < config.tolerance
        active = active[[not converged[item] for item in items]]
        if not len(active):
            break
    return Refinement(result, iterations, converged, divergences)
