"""Tokens that rounding decides: counted, because another machine or batch may decide them otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lm_eval_eglr.decoding.config import RecursionConfig

# How far a log-probability moves when its sums are taken in another order, nats; docs/reliability.md says
# how this was measured. Types of fewer bits move further.
ROUNDING = {torch.float64: 1e-11, torch.float32: 1e-4}
HALF_ROUNDING = 0.1


def rounding_of(dtype: torch.dtype) -> float:
    """How far rounding moves a log-probability of a model of that type, nats."""
    return ROUNDING.get(dtype, HALF_ROUNDING)


def argmax_ties(likeliest: Tensor, rounding: float) -> list[bool]:
    """Whether the two likeliest tokens are within rounding of each other.

    Args:
        likeliest: Log-probabilities, the largest first, ``[items, at least 1]``.
        rounding: From :func:`rounding_of`.
    """
    if likeliest.shape[-1] < 2:
        return [False] * len(likeliest)
    # Both may move, one up and one down.
    ties: list[bool] = (likeliest[:, 0] - likeliest[:, 1] <= 2 * rounding).tolist()
    return ties


def draw_ties(margins: Tensor, temperatures: Tensor, rounding: float) -> Sequence[Sequence[bool]]:
    """Whether a uniform lies within rounding of the end of its token's interval.

    Logits that move by at most r/T each move a cumulative mass c by at most 2 r/T · c (1 − c) ≤ r / 2T.
    That truncation may keep other tokens is not covered.

    Args:
        margins: From :func:`~lm_eval_eglr.decoding.sampling.draw_with_margins`, ``[items, draws]``.
        temperatures: ``[items]``.
        rounding: From :func:`rounding_of`.
    """
    ties: list[list[bool]] = (margins * temperatures[:, None] <= rounding / 2).tolist()
    return ties


def recursion_ties(
    entropy: float, divergences: Sequence[float], config: RecursionConfig, rounding: float
) -> bool:
    """Whether the gate, or an iteration's test for convergence, is within rounding of its threshold.

    Logits that move by r move an entropy H by at most 2 r · E|ln p + H|, and a divergence as small as the
    tolerance by about r · √(8 KL).

    Args:
        entropy: H(p_0), nats.
        divergences: KL(p_k ‖ p_{k−1}) of each iteration, nats; none if the gate was shut.
        config: With the thresholds.
        rounding: From :func:`rounding_of`.
    """
    if abs(entropy - config.entropy_threshold) <= 2 * rounding:
        return True
    reach = rounding * (8 * config.tolerance) ** 0.5
    return any(abs(divergence - config.tolerance) <= reach for divergence in divergences)
