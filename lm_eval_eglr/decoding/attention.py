"""Attention and masks for rows that sit at positions of their own, plugged into transformers by name.

transformers lets a model take its attention and its masks from registries. With our entry the model's
own forward runs unchanged on a :class:`~lm_eval_eglr.decoding.row_cache.RowCache`, whose rows have
different lengths, and query heads that share a key head are folded instead of copying keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from lm_eval_eglr.decoding.item_past import ItemPast
from lm_eval_eglr.decoding.precision import at_least_fp32
from lm_eval_eglr.decoding.row_cache import PAST

NAME = "eglr_rows"


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
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention with the query heads of a group folded into the query length.

    softmax(softcap · tanh(q kᵀ · scaling / softcap)) v, scores in fp32. Repeating keys and values for
    grouped heads, as a plain loop does, costs more than the attention itself on a CPU.

    Args:
        query: ``[rows, heads, queries, dim]``.
        key: ``[rows, key_heads, width, dim]``.
        value: ``[rows, key_heads, width, value_dim]``.
        attention_mask: Boolean, ``[rows, 1, queries, width]``.
        s_aux: Attention sinks, one logit per head, ``[heads]``.

    Returns:
        ``[rows, queries, heads, value_dim]`` and no weights.
    """
    rows, heads, queries, dim = query.shape
    groups = heads // key.shape[1]
    if scaling is None:
        scaling = dim**-0.5
    past: ItemPast | None = getattr(key, PAST, None)
    if past is not None:
        return _item_attention(query, key, value, attention_mask, past, scaling, softcap, s_aux), None
    if queries > 1 and softcap is None and s_aux is None:
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=groups > 1
        )
        return out.transpose(1, 2).contiguous(), None

    folded = query.reshape(rows, key.shape[1], groups * queries, dim)
    scores = _capped(at_least_fp32(folded @ key.transpose(-1, -2)) * scaling, softcap)
    scores = scores.view(rows, key.shape[1], groups, queries, -1)
    scores = scores.masked_fill(~attention_mask[:, :, None], -torch.inf)
    if s_aux is not None:
        sinks = at_least_fp32(s_aux).view(1, key.shape[1], groups, 1, 1).expand(rows, -1, -1, queries, 1)
        weights = torch.cat([scores, sinks], dim=-1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    weights = weights.to(value.dtype).view(rows, key.shape[1], groups * queries, -1)
    out = (weights @ value).view(rows, heads, queries, -1)
    return out.transpose(1, 2).contiguous(), None


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _item_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    past: ItemPast,
    scaling: float,
    softcap: float | None,
    s_aux: Tensor | None,
) -> Tensor:
    """Attention of single queries to their row's past and to their own key and value.

    All items of a row are folded into its query length, so the past is read once per row.

    Args:
        query: ``[items, heads, 1, dim]``.
        key: The items' own keys, ``[items, key_heads, 1, dim]``; ``value`` likewise.
        attention_mask: ``[items, 1, 1, width]``.

    Returns:
        ``[items, 1, heads, value_dim]``.
    """
    items, heads, _, dim = query.shape
    key_heads = key.shape[1]
    groups = heads // key_heads
    places = past.places
    count, width = places.count, places.width
    grouped = query.view(items, key_heads, groups, dim)
    own = _capped(at_least_fp32((grouped * key).sum(-1)) * scaling, softcap)  # [items, key_heads, groups]

    spread = places.spread(grouped).transpose(1, 2)  # [rows, key_heads, places, groups, dim]
    folded = spread.reshape(count, key_heads, width * groups, dim)
    scores = _capped(at_least_fp32(folded @ past.keys.transpose(-1, -2)) * scaling, softcap)
    scores = scores.view(count, key_heads, width, groups, -1)
    scores = scores.masked_fill(~places.past_mask(attention_mask)[:, None, :, None], -torch.inf)
    logits = [scores, places.spread(own).transpose(1, 2)[..., None]]
    if s_aux is not None:
        logits.append(at_least_fp32(s_aux).view(1, key_heads, 1, groups, 1).expand(count, -1, width, -1, 1))
    weights = torch.cat(logits, dim=-1).softmax(-1).to(value.dtype)
    columns = past.keys.shape[2]
    seen = weights[..., :columns].reshape(count, key_heads, width * groups, columns)
    out = (seen @ past.values).view(count, key_heads, width, groups, -1).transpose(1, 2)
    own_weight = places.gather(weights[..., columns].transpose(1, 2))[..., None]
    return (places.gather(out) + own_weight * value).reshape(items, 1, heads, -1)


AttentionInterface.register(NAME, row_attention)
AttentionMaskInterface.register(NAME, row_mask)


class RowAttention:
    """Switches a model to :func:`row_attention` for a block: ``with attention(): ...``."""

    def __init__(self, model: PreTrainedModel) -> None:
        configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
        self._configs = list(configs.values())

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Switches for the block, then back to what each part of the model had before."""
        before = [config._attn_implementation for config in self._configs]
        try:
            for config in self._configs:
                config._attn_implementation = NAME
            yield
        finally:
            for config, name in zip(self._configs, before, strict=True):
                config._attn_implementation = name
