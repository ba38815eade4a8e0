"""Drawing a token: its uniform, truncation, and the inverse of the cumulative distribution.

A uniform is a function of seed, document, cell and step, and of nothing else; so are the draws.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any, cast

import numpy as np
import torch
from eglr_selectors.pool import Cell
from torch import Tensor
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from lm_eval_eglr.decoding.config import SamplingConfig
from lm_eval_eglr.decoding.numerics import CHUNK, LARGE_VOCABULARY, in_chunks, row_blocks

LARGE_ON_CPU = 1 << 16  # vocabulary; a block there has few rows, for which more and smaller steps pay later
BLOCK = 256  # uniforms of a cell that are made at a time
BELOW_ONE = {dtype: 1 - torch.finfo(dtype).eps / 2 for dtype in (torch.float32, torch.float64)}
Truncation = tuple[int, float, float]

# One generator that is given each stream's state: to make another takes eight times as long as a block.
_PHILOX = np.random.Philox(key=0)
_STATE: Any = dict(_PHILOX.state)  # as at its beginning, but for key and counter
_ONE_AT_A_TIME = threading.Lock()


class DrawStream:
    """The uniforms of one cell of one document, by step.

    Philox is counter-based and its raw output is fixed by its definition, so the draws are the same on
    every machine, whatever the batch, the order of the documents or the other cells of the grid.
    With ``noise="shared"`` the span is left out of the key: common random numbers along L. Span 0 never
    enters, so that plain samples are the same ones in every grid.
    """

    def __init__(self, sampling: SamplingConfig, document: str, cell: Cell) -> None:
        parts = [str(sampling.seed), document, repr(cell.temperature), str(cell.sample)]
        if sampling.noise == "independent" and cell.span:
            parts.append(str(cell.span))
        digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).digest()
        self._key = np.frombuffer(digest, "<u8")

    def block(self, number: int) -> np.ndarray:
        """The uniforms in [0, 1) of the steps from ``number * BLOCK`` on, ``[BLOCK]``."""
        with _ONE_AT_A_TIME:
            _STATE["state"]["key"] = self._key
            _STATE["state"]["counter"][0] = number * BLOCK // 4  # each count of Philox gives four words
            _PHILOX.state = _STATE
            raw = np.asarray(_PHILOX.random_raw(BLOCK), dtype=np.uint64)
        uniforms: np.ndarray = (raw >> np.uint64(11)) * 2.0**-53
        return uniforms


def truncation_of(sampling: SamplingConfig) -> Truncation:
    """What decides whether two cells can be drawn in one call of :func:`draw_tokens`."""
    return (sampling.top_k, sampling.top_p, sampling.min_p)


def warpers(truncation: Truncation) -> LogitsProcessorList:
    """transformers' own truncation of a tempered distribution, in the order of its ``generate``."""
    top_k, top_p, min_p = truncation
    found = LogitsProcessorList()
    if top_k > 0:
        found.append(TopKLogitsWarper(top_k=top_k))
    if top_p < 1.0:
        found.append(TopPLogitsWarper(top_p=top_p))
    if min_p > 0.0:
        found.append(MinPLogitsWarper(min_p=min_p))
    return found


def draw_tokens(
    logprobs: Tensor, temperatures: Tensor, uniforms: Tensor, warp: LogitsProcessorList
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws tokens by inverting the cumulative distribution: the first token whose cumulative mass exceeds u.

    Args:
        logprobs: Log-probabilities at temperature 1, ``[items, vocab]``.
        temperatures: One per item, above 0, ``[items]``.
        uniforms: Draws per item, in [0, 1), ``[items, draws]``.
        warp: Truncation, from :func:`warpers`.

    Returns:
        Token ids, ``[items, draws]``; a token of probability 0 is never drawn. Each draw's margin: how far
        log-probabilities at temperature 1 would have to move for it to come out otherwise, nats. And its
        log-probability under the tempered, truncated and renormalised distribution, nats. All
        ``[items, draws]``.
    """
    blocks = list(row_blocks(logprobs))
    if len(blocks) <= 1:
        return _draw(logprobs, temperatures[:, None], uniforms, warp)
    draws = [_draw(logprobs[rows], temperatures[rows, None], uniforms[rows], warp) for rows in blocks]
    tokens, margins, drawn = (torch.cat(each) for each in zip(*draws, strict=True))
    return tokens, margins, drawn


def _draw(
    logprobs: Tensor, temperatures: Tensor, uniforms: Tensor, warp: LogitsProcessorList
) -> tuple[Tensor, Tensor, Tensor]:
    scores = logprobs / temperatures
    if warp:
        no_history = cast("torch.LongTensor", torch.empty(0, dtype=torch.long))
        scores = warp(no_history, cast("torch.FloatTensor", scores))
    # Weights relative to the likeliest token, in place: a distribution over a vocabulary is large, and each
    # pass over it costs. No warper writes into its input, so what it returns is ours.
    weights = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    # A uniform may round up to 1, where there is no token. Any total times the number just below 1 rounds to
    # less than that total.
    uniforms = uniforms.to(weights.dtype).clamp_max(BELOW_ONE[weights.dtype])
    large = LARGE_ON_CPU if weights.device.type == "cpu" else LARGE_VOCABULARY
    if weights.shape[-1] >= large:
        sums = _sums_of_chunks(weights)
        tokens, upper, targets, total = _inverse_by_chunks(weights, sums, uniforms)
    else:
        sums = weights
        tokens, upper, targets, total = _inverse(weights, uniforms)
    own = weights.gather(-1, tokens)
    above = upper - targets
    below = own - above
    # Logits that move by at most r/T each move a cumulative mass c by at most 2 r/T · c (1 − c). That
    # truncation may keep other tokens is not covered.
    edge = torch.where(above <= below, upper, upper - own).clamp_min(0.0)
    margins = torch.minimum(above, below) * (temperatures / 2) * total / (edge * (total - edge))
    # Summed again: what a cumulative sum of a long row ends with has lost some digits.
    return tokens, margins, (own / sums.sum(-1, keepdim=True)).log()


def _inverse(weights: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first tokens whose cumulative weight exceeds a share of the total.

    Args:
        weights: ``[items, vocab]``.
        uniforms: The shares, below 1, ``[items, draws]``.

    Returns:
        The tokens, the cumulative weights up to and with them, and those that they exceed, all
        ``[items, draws]``; and the totals, ``[items, 1]``.
    """
    cumulative = weights.cumsum(-1)
    total = cumulative[:, -1:]
    targets = uniforms * total
    # Only distributions that are not finite have no such token.
    tokens = torch.searchsorted(cumulative, targets, right=True).clamp_max(weights.shape[-1] - 1)
    return tokens, cumulative.gather(-1, tokens), targets, total


def _sums_of_chunks(weights: Tensor) -> Tensor:
    """Sums of chunks of ``[items, vocab]``, that of what is left behind them last."""
    chunks, rest = in_chunks(weights)
    return torch.cat([chunks.sum(-1), rest.sum(-1, keepdim=True)], -1)


def _inverse_by_chunks(
    weights: Tensor, sums: Tensor, uniforms: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same, first among the sums of chunks, then in the chunk: a sum is one pass over the weights, while
    what is cumulative is written, too. Sums of sums have lost fewer digits."""
    width = weights.shape[-1]
    chunks, upto, targets, total = _inverse(sums, uniforms)
    mass = sums.gather(-1, chunks)
    before = upto - mass
    places = chunks[..., None] * CHUNK + torch.arange(CHUNK, device=weights.device)  # [items, draws, CHUNK]
    inside = weights.gather(-1, places.clamp_max(width - 1).flatten(1)).view(places.shape)
    inside = inside.masked_fill_(places >= width, 0.0).flatten(0, 1)
    # Of the chunk's own total, which its last token must exceed whatever the sums were rounded to.
    shares = ((targets - before) / mass).clamp(0.0, BELOW_ONE[weights.dtype])
    found, reached, _, _ = _inverse(inside, shares.reshape(-1, 1))
    tokens = (chunks * CHUNK + found.view(chunks.shape)).clamp_max(width - 1)
    return tokens, torch.minimum(before + reached.view(chunks.shape), total), targets, total
