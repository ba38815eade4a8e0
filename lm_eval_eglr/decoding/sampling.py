"""Drawing tokens from distributions by given uniforms."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from lm_eval_eglr.decoding.config import SamplingConfig
from lm_eval_eglr.decoding.row_blocks import row_blocks

Truncation = tuple[int, float, float]


def truncation_key(sampling: SamplingConfig) -> Truncation:
    """What decides whether two cells can be drawn in one call of :func:`draw_with_margins`."""
    return (sampling.top_k, sampling.top_p, sampling.min_p)


def truncation(key: Truncation) -> LogitsProcessorList:
    """transformers' own truncation of a tempered distribution, in the order of its ``generate``."""
    top_k, top_p, min_p = key
    warpers = LogitsProcessorList()
    if top_k > 0:
        warpers.append(TopKLogitsWarper(top_k=top_k))
    if top_p < 1.0:
        warpers.append(TopPLogitsWarper(top_p=top_p))
    if min_p > 0.0:
        warpers.append(MinPLogitsWarper(min_p=min_p))
    return warpers


def draw_with_margins(
    logprobs: Tensor, temperatures: Tensor, uniforms: Tensor, warpers: LogitsProcessorList
) -> tuple[Tensor, Tensor]:
    """Draws tokens by inverting the cumulative distribution: the first token whose cumulative mass exceeds u.

    Args:
        logprobs: Log-probabilities at temperature 1, ``[items, vocab]``.
        temperatures: One per item, above 0, ``[items]``.
        uniforms: Draws per item, in [0, 1), ``[items, draws]``.
        warpers: Truncation, from :func:`truncation`.

    Returns:
        Token ids, ``[items, draws]``; a token of probability 0 is never drawn. And each draw's margin, the
        mass between u and the nearer end of its token's interval, ``[items, draws]``.
    """
    draws = [
        _draw(logprobs[rows], temperatures[rows, None], uniforms[rows], warpers)
        for rows in row_blocks(logprobs)
    ]
    return torch.cat([tokens for tokens, _ in draws]), torch.cat([margins for _, margins in draws])


def _draw(
    logprobs: Tensor, temperatures: Tensor, uniforms: Tensor, warpers: LogitsProcessorList
) -> tuple[Tensor, Tensor]:
    scores = logprobs / temperatures
    no_history = cast("torch.LongTensor", torch.empty(0, dtype=torch.long))
    kept = warpers(no_history, cast("torch.FloatTensor", scores))
    # Weights relative to the likeliest token, in place: a distribution over a vocabulary is large, and each
    # pass over it costs. No warper writes into its input, so what it returns is ours.
    weights = kept.sub_(kept.amax(-1, keepdim=True)).exp_()
    cumulative = weights.cumsum(-1)
    total = cumulative[:, -1:]
    # The product may round up to the total, beyond which there is no token.
    targets = torch.minimum(uniforms.to(total.dtype) * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, targets, right=True)
    above = cumulative.gather(-1, tokens) - targets
    margins = torch.minimum(above, weights.gather(-1, tokens) - above) / total
    return tokens, margins
