"""Attention and masks for rows that sit at positions of their own, plugged into transformers by name.

transformers lets a model take its attention and its masks from registries. With our entry the model's own
forward runs unchanged on a cache whose rows have different lengths. Query heads that share a key head are
folded into the query length, and so are several queries of one row, so that keys and values are read once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Cache

from lm_eval_eglr.decoding.numerics import at_least_fp32

# Rows are copied to be read where they are fewer than one of so many: a copy comes as fresh memory, and takes
# about three times as long as the products with what it holds.
COPIED_AT_MOST = 5


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

    folded = query.reshape(rows, key_heads, groups * queries, dim)
    scores = _capped(at_least_fp32(folded @ key.transpose(-1, -2)).mul_(scaling), softcap)
    scores = scores.view(rows, key_heads, groups, queries, -1)
    scores += additive(mask[:, :, None], scores.dtype)
    if sinks is not None:
        logits = at_least_fp32(sinks).view(1, key_heads, groups, 1, 1).expand(rows, -1, -1, queries, 1)
        weights = torch.cat([scores, logits], dim=-1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    weights = weights.to(value.dtype).view(rows, key_heads, groups * queries, -1)
    out = (weights @ value).view(rows, heads, queries, -1)
    return out.transpose(1, 2).contiguous()


@dataclass(slots=True)
class SharedLayout:
    """Queries laid out by the row whose past they attend to, ``[rows, ranks]``; made once per pass.

    Several queries may share a row: spans of one prefix, or positions of one sequence.

    Attributes:
        rows: Cache rows that are read, ``[rows]``; ``None`` for the first ones, where a view is cheaper.
        row: Which of them each query reads, ``[queries]``.
        rank: The query's rank within its row, ``[queries]``.
        count: Number of rows read.
        width: Most queries of a row.
        positions: Position of each query, ``[queries]``.
    """

    rows: Tensor | None
    row: Tensor
    rank: Tensor
    count: int
    width: int
    positions: Tensor
    _masks: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] = field(default_factory=dict)
    _own: Tensor | None = None

    @classmethod
    def of(cls, rows: Tensor, positions: Tensor, live: int) -> SharedLayout:
        """Lays out queries that read ``rows`` ``[queries]``, of ``live`` rows in the cache.

        On a GPU each of these lines would wait for it: lay out on the CPU, then move.
        """
        distinct, row = torch.unique(rows, return_inverse=True)
        rank = rank_within_group(rows)
        width = int(rank.max()) + 1
        if COPIED_AT_MOST * len(distinct) > live:
            # A view of every row costs no more to read than some of them to copy.
            return cls(None, rows, rank, live, width, positions)
        return cls(distinct, row, rank, len(distinct), width, positions)

    def to(self, device: torch.device) -> SharedLayout:
        """The same layout on a device."""
        rows = None if self.rows is None else self.rows.to(device)
        row, rank, positions = self.row.to(device), self.rank.to(device), self.positions.to(device)
        return SharedLayout(rows, row, rank, self.count, self.width, positions)

    def scatter(self, values: Tensor) -> Tensor:
        """``[queries, ...]`` to ``[rows, ranks, ...]``, zero where a row has no query of a rank."""
        spread = values.new_zeros(self.count, self.width, *values.shape[1:])
        spread[self.row, self.rank] = values
        return spread

    def gather(self, values: Tensor) -> Tensor:
        """``[rows, ranks, ...]`` back to ``[queries, ...]``."""
        return values[self.row, self.rank]

    def read(self, store: Tensor, columns: int) -> Tensor:
        """The first columns of the rows that are read, ``[rows, key_heads, columns, dim]``."""
        if self.rows is None:
            return store[: self.count, :, :columns]
        return store[:, :, :columns].index_select(0, self.rows)

    def past_bias(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """0 for what of the past each query sees, -inf elsewhere, ``[rows, ranks, width]``.

        Args:
            mask: As for a plain pass, ``[queries, 1, 1, width]``.
            dtype: Type of the scores.
        """
        if torch.compiler.is_compiling():  # a compiled layer knows no other
            return additive(self.scatter(mask[:, 0, 0]), dtype)
        known = self._masks.get((id(mask), dtype))
        if known is None:
            bias = additive(self.scatter(mask[:, 0, 0]), dtype)
            # The mask is kept beside the result: its id must not be given away meanwhile.
            known = self._masks[id(mask), dtype] = (mask, bias)
        return known[1]

    def own_columns(self) -> Tensor:
        """Column of each query's own position, ``[rows, ranks]``."""
        if torch.compiler.is_compiling():
            return self.scatter(self.positions)
        if self._own is None:
            self._own = self.scatter(self.positions)
        return self._own


def rank_within_group(rows: Tensor) -> Tensor:
    """Number of equal ones before each, both ``[queries]``."""
    order = torch.argsort(rows, stable=True)
    counts = torch.bincount(rows)
    ranks = torch.empty_like(rows)
    ranks[order] = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows[order]]
    return ranks


def shared_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    past: tuple[Tensor, Tensor],
    layout: SharedLayout,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of single queries to their row's past and to their own key and value.

    All queries of a row are folded into its query length, so that the past is read once per row.

    Args:
        query: ``[queries, heads, 1, dim]``.
        key: The queries' own keys, ``[queries, key_heads, 1, dim]``; ``value`` likewise.
        mask: ``[queries, 1, 1, width]``.
        past: Keys and values that ``layout`` reads, ``[rows, key_heads, width, dim]``.
        layout: Which query attends to which row.
        scaling: As of :func:`row_attention`, and so are ``softcap`` and ``sinks``.

    Returns:
        ``[queries, 1, heads, value_dim]``.
    """
    queries, heads, _, dim = query.shape
    key_heads = key.shape[1]
    groups = heads // key_heads
    scaling = dim**-0.5 if scaling is None else scaling
    count, width = layout.count, layout.width
    keys, values = past
    grouped = query.view(queries, key_heads, groups, dim)
    own = _capped(at_least_fp32((grouped * key).sum(-1)) * scaling, softcap)  # [queries, key_heads, groups]

    spread = layout.scatter(grouped).transpose(1, 2)  # [rows, key_heads, ranks, groups, dim]
    folded = spread.reshape(count, key_heads, width * groups, dim)
    scores = _capped(at_least_fp32(folded @ keys.transpose(-1, -2)).mul_(scaling), softcap)
    scores = scores.view(count, key_heads, width, groups, -1)
    scores += layout.past_bias(mask, scores.dtype)[:, None, :, None]
    # A query's own score takes the column of its position, where the past has another key, or none.
    place = layout.own_columns()[:, None, :, None, None].expand(-1, key_heads, -1, groups, 1)
    scores.scatter_(-1, place, layout.scatter(own).transpose(1, 2)[..., None])
    if sinks is None:
        weights = scores.softmax(-1)
    else:
        logits = at_least_fp32(sinks).view(1, key_heads, 1, groups, 1).expand(count, -1, width, -1, 1)
        weights = torch.cat([scores, logits], dim=-1).softmax(-1)[..., :-1].contiguous()
    weights = weights.to(value.dtype)
    own_weight = weights.gather(-1, place)
    seen = weights.scatter_(-1, place, 0.0).view(count, key_heads, width * groups, -1)
    out = (seen @ values).view(count, key_heads, width, groups, -1).transpose(1, 2)
    own_part = layout.gather(own_weight.transpose(1, 2)) * value
    return (layout.gather(out) + own_part).reshape(queries, 1, heads, -1)


class LayerCache(Cache):
    """What one layer sees of a pass of single queries: tensors and numbers, so that it can be compiled.

    Nothing in it depends on which layer it is, or compiled code would be made for each of them.
    """

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        stores: Tensor,
        positions: Tensor,
        live: int,
        width: int,
        layout: SharedLayout | None,
    ) -> None:
        """Prepares a layer.

        Args:
            keys: Those of all rows of the cache, ``[slots, key_heads, length, dim]``; ``values`` likewise.
            stores: Row of the cache where the keys and values of the first queries go, ``[stored]``.
            positions: Their columns, ``[stored]``.
            live: Rows that are read, where each query reads one of its own.
            width: Columns that are read.
            layout: How queries share rows otherwise.
        """
        super().__init__(layers=[])
        self.keys, self.values = keys, values
        self.stores, self.positions = stores, positions
        self.live, self.width = live, width
        self.layout = layout

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Stores ``[queries, key_heads, 1, dim]``; where queries share rows, all get their own back."""
        stored = self.stores.shape[0]
        if torch.compiler.is_compiling():  # heads and their sizes are no symbols
            torch._check(self.keys.shape[1] == key_states.shape[1])
            torch._check(self.keys.shape[3] == key_states.shape[3])
            torch._check(self.values.shape[3] == value_states.shape[3])
        if stored:
            self.keys[self.stores, :, self.positions] = key_states[:stored, :, 0]
            self.values[self.stores, :, self.positions] = value_states[:stored, :, 0]
        if self.layout is None:
            return self.keys[: self.live, :, : self.width], self.values[: self.live, :, : self.width]
        return key_states, value_states

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options: Any) -> Tensor:
        """Plain attention to views of the cache, or to the shared past and to what is each one's own."""
        layout = self.layout
        if layout is None:
            return row_attention(query, key, value, mask, **options)
        past = layout.read(self.keys, self.width), layout.read(self.values, self.width)
        return shared_attention(query, key, value, mask, past, layout, **options)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a mask is true and -inf elsewhere: to add it takes a third of the time of filling."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)
