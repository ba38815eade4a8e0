"""Attention and masks for rows that sit at positions of their own, plugged into transformers by name.

transformers lets a model take its attention and its masks from registries. With our entry the model's own
forward runs unchanged on a cache whose rows have different lengths. Query heads that share a key head are
folded into the query length, and so are several queries of one row, so that keys and values are read once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Cache

from lm_eval_eglr.decoding.numerics import at_least_fp32


def row_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor,
    kv_offset: int,
    mask_function: Callable[..., Tensor],
    device: torch.device,
    **_: Any,
) -> Tensor:
    """Evaluates a model's mask rule with one query offset per row.

    Args:
        q_offset: Position of each row's first query, ``[batch_size]``.
        mask_function: transformers' rule (causal, sliding window, chunked) over index tensors.

    Returns:
        Boolean mask, true where attended, ``[batch_size, 1, q_length, kv_length]``.
    """
    offset = torch.as_tensor(q_offset, device=device).reshape(-1, 1, 1, 1)
    queries = offset + torch.arange(q_length, device=device)[None, None, :, None]
    keys = torch.arange(kv_offset, kv_offset + kv_length, device=device)[None, None, None, :]
    rows = torch.arange(batch_size, device=device)[:, None, None, None]
    heads = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=device)
    return mask_function(rows, heads, queries, keys).expand(batch_size, 1, q_length, kv_length)


def row_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention with the query heads of a group folded into the query length.

    softmax(softcap · tanh(q kᵀ · scaling / softcap)) v, scores in fp32. Repeating keys and values for
    grouped heads, as a plain loop does, costs more than the attention itself on a CPU.

    Args:
        query: ``[rows, heads, queries, dim]``.
        key: ``[rows, key_heads, width, dim]``.
        value: ``[rows, key_heads, width, value_dim]``.
        mask: Boolean, ``[rows, 1, queries, width]``.
        scaling: Of the scores; 1 / √dim by default.
        softcap: Largest score; ``None`` for none.
        sinks: Attention sinks, one logit per head, ``[heads]``.

    Returns:
        ``[rows, queries, heads, value_dim]``.
    """
    rows, heads, queries, dim = query.shape
    key_heads = key.shape[1]
    groups = heads // key_heads
    scaling = dim**-0.5 if scaling is None else scaling
    plain = softcap is None and sinks is None
    if plain and queries > 1:
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, enable_gqa=groups > 1
        )
        return out.transpose(1, 2).contiguous()
    if plain and query.is_cuda:
        # One kernel that reads keys and values once. On a CPU two matrix products are as fast or faster.
        folded = query.reshape(rows, key_heads, groups, dim)
        out = F.scaled_dot_product_attention(
            folded, key, value, attn_mask=mask.expand(rows, 1, groups, -1), scale=scaling
        )
        return out.reshape(rows, 1, heads, -1)

    folded = query.view(rows, key_heads, groups, queries, dim).transpose(2, 3)
    scores = scores_of(folded, key, additive(mask[:, 0], query.dtype), scaling, softcap)
    weights = scores.softmax(-1)
    out = mixed(weights, value).transpose(1, 2)  # [rows, queries, key_heads, groups, value_dim]
    if sinks is not None:
        shares = (log_sums(scores, weights).transpose(1, 2) - of_heads(sinks, key_heads)).sigmoid()
        out = out * shares[..., None].to(out.dtype)
    return out.reshape(rows, queries, heads, -1)


def scores_of(
    query: Tensor, keys: Tensor, bias: Tensor | None, scaling: float, softcap: float | None
) -> Tensor:
    """Scores of all queries of a row at once, in fp32 at least.

    Args:
        query: ``[rows, key_heads, ranks, groups, dim]``.
        keys: ``[rows, key_heads, width, dim]``.
        bias: What is added, ``[rows, ranks, width]``.
        scaling: What products are multiplied by.
        softcap: Largest score; ``None`` for none.

    Returns:
        ``[rows, key_heads, ranks, groups, width]``.
    """
    rows, key_heads, ranks, groups, dim = query.shape
    folded = query.reshape(rows, key_heads, ranks * groups, dim)
    scores = capped(at_least_fp32(folded @ keys.transpose(-1, -2)).mul_(scaling), softcap)
    scores = scores.view(rows, key_heads, ranks, groups, -1)
    return scores if bias is None else scores.add_(bias[:, None, :, None])


def mixed(weights: Tensor, values: Tensor) -> Tensor:
    """Values by weights ``[rows, key_heads, ranks, groups, width]``: ``[..., groups, value_dim]``."""
    rows, key_heads, ranks, groups, width = weights.shape
    folded = weights.to(values.dtype).view(rows, key_heads, ranks * groups, width)
    return (folded @ values).view(rows, key_heads, ranks, groups, -1)


def log_sums(scores: Tensor, weights: Tensor) -> Tensor:
    """ln of the sum of exp of scores, of which ``weights`` is the softmax: ``[..., width]`` to ``[...]``."""
    # The largest weight is 1 over the sum of exp of how far scores are below the largest.
    return scores.amax(-1) - weights.amax(-1).log()


def capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def of_heads(sinks: Tensor, key_heads: int) -> Tensor:
    """The sink of each head, ``[heads]`` to ``[key_heads, groups]``, in fp32 at least."""
    return at_least_fp32(sinks).view(key_heads, -1)


@dataclass
class Past:
    """What the single queries of a pass attend to: the first columns of a row each, itself included.

    Attributes:
        live: Rows of the cache that are read.
        width: Columns of the rows that are read.
        columns: Column of its row where each query's own position is, ``[queries]``.
    """

    live: int
    width: int
    columns: Tensor

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        rows: tuple[Tensor, Tensor],
        prompts: tuple[Tensor, Tensor] | None,
        *,
        scaling: float | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Attention of the queries of a layer.

        Args:
            query: ``[queries, heads, 1, dim]``.
            key: The queries' own keys, ``[queries, key_heads, 1, dim]``; ``value`` likewise.
            mask: True for the positions that each query sees, ``[queries, 1, 1, positions]``.
            rows: Keys and values of all rows of the cache, ``[slots, key_heads, length, dim]``.
            prompts: Those of all prompts; ``None`` where the rows hold everything.
            scaling: As of :func:`row_attention`, and so are ``softcap`` and ``sinks``.

        Returns:
            ``[queries, 1, heads, value_dim]``.
        """
        keys, values = self.read(rows)
        return row_attention(query, keys, values, mask, scaling=scaling, softcap=softcap, sinks=sinks)

    def read(self, stores: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The keys and values of the rows that are read, ``[rows, key_heads, width, dim]``."""
        keys, values = stores
        return keys[: self.live, :, : self.width], values[: self.live, :, : self.width]


class LayerCache(Cache):
    """What one layer sees of a pass of single queries: tensors and numbers, so that it can be compiled.

    Nothing in it depends on which layer it is, or compiled code would be made for each of them.
    """

    def __init__(
        self,
        rows: tuple[Tensor, Tensor],
        prompts: tuple[Tensor, Tensor] | None,
        stores: Tensor,
        columns: Tensor,
        past: Past,
    ) -> None:
        """Prepares a layer.

        Args:
            rows: Keys and values of all rows of the cache, ``[slots, key_heads, length, dim]``.
            prompts: Those of all prompts; ``None`` where the rows hold everything.
            stores: Row of the cache where the keys and values of the first queries go, ``[stored]``.
            columns: Their columns, ``[stored]``.
            past: Who attends to what.
        """
        super().__init__(layers=[])
        self.keys, self.values = rows
        self.prompts = prompts
        self.stores, self.columns = stores, columns
        self.past = past

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Stores ``[queries, key_heads, 1, dim]``; the same tensors come back."""
        stored = self.stores.shape[0]
        if torch.compiler.is_compiling():  # heads and their sizes are no symbols
            torch._check(self.keys.shape[1] == key_states.shape[1])
            torch._check(self.keys.shape[3] == key_states.shape[3])
            torch._check(self.values.shape[3] == value_states.shape[3])
        if stored:
            self.keys[self.stores, :, self.columns] = key_states[:stored, :, 0]
            self.values[self.stores, :, self.columns] = value_states[:stored, :, 0]
        return key_states, value_states

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options: Any) -> Tensor:
        """Attention of the queries, ``[queries, 1, heads, value_dim]``."""
        rows = self.keys, self.values
        return self.past.attend(query, key, value, mask, rows, self.prompts, **options)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a mask is true, elsewhere the lowest number, for scores of queries of a type.

    Adding takes a third of the time of filling. Not -inf: of a part of the past, all may be hidden.
    """
    dtype = torch.promote_types(dtype, torch.float32)
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(~mask, torch.finfo(dtype).min)
