"""A past that queries read together: rows that several of them attend to, and prompts of whole pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lm_eval_eglr.decoding.model.attention import (
    Past,
    additive,
    capped,
    log_sums,
    mixed,
    of_heads,
    scores_of,
)
from lm_eval_eglr.decoding.numerics import at_least_fp32, on_device

# Rows are copied to be read where they are fewer than one of so many: a copy comes as fresh memory, and takes
# about three times as long as the products with what it holds.
COPIED_AT_MOST = 5


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
        taken: The row that each one's result is taken from, where some read none: their ``row`` is ``count``,
            and what they get is nobody's. ``None`` where all read one.
    """

    rows: Tensor | None
    row: Tensor
    rank: Tensor
    count: int
    width: int
    taken: Tensor | None = None

    @classmethod
    def of(cls, rows: Tensor, live: int) -> SharedLayout:
        """Lays out queries that read ``rows`` ``[queries]``, of ``live`` rows in the cache.

        On a GPU each of these lines would wait for it: lay out on the CPU, then move.
        """
        distinct, row = torch.unique(rows, return_inverse=True)
        rank = rank_within_group(rows)
        width = int(rank.max()) + 1
        if COPIED_AT_MOST * len(distinct) > live:
            # A view of every row costs no more to read than some of them to copy.
            return cls(None, rows, rank, live, width)
        return cls(distinct, row, rank, len(distinct), width)

    def to(self, device: torch.device) -> SharedLayout:
        """The same layout on a device."""
        rows = None if self.rows is None else on_device(self.rows, device)
        return SharedLayout(
            rows, on_device(self.row, device), on_device(self.rank, device), self.count, self.width
        )

    def scatter(self, values: Tensor) -> Tensor:
        """``[queries, ...]`` to ``[rows, ranks, ...]``, zero where a row has no query of a rank."""
        rows = self.count + (self.taken is not None)
        spread = values.new_zeros(rows, self.width, *values.shape[1:])
        spread[self.row, self.rank] = values
        return spread[: self.count]

    def gather(self, values: Tensor) -> Tensor:
        """``[rows, ranks, ...]`` back to ``[queries, ...]``."""
        return values[self.row if self.taken is None else self.taken, self.rank]

    def read(self, store: Tensor, columns: int) -> Tensor:
        """The first columns of the rows that are read, ``[rows, key_heads, columns, dim]``."""
        if self.rows is None:
            return store[: self.count, :, :columns]
        return store[:, :, :columns].index_select(0, self.rows)


class SharedPrompts:
    """The prompts of a pass, which are stored once each, and the queries that attend to them.

    Attributes:
        order: Queries in the order of their prompts, ``[queries]``.
        groups: Of each prompt that is read: where it is stored, its length, and which part of ``order``
            attends to it.
    """

    def __init__(self, prompts: Tensor, begins: Tensor) -> None:
        """Groups queries by their prompts, whose positions ``begins`` counts, both ``[queries]``."""
        self.order = torch.argsort(prompts, stable=True)
        slots, counts = torch.unique(prompts, return_counts=True)
        ends = counts.cumsum(0)
        lengths = begins[self.order[ends - 1]]
        lines = zip(slots.tolist(), lengths.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True)
        self.groups = [(slot, length, slice(start, end)) for slot, length, start, end in lines if length]
        self._begins = begins

    def own(self, mask: Tensor, width: int) -> Tensor:
        """What of the ``width`` columns of its row each query sees, by a mask ``[queries, positions]``."""
        positions = on_device(self._begins, mask.device)[:, None] + torch.arange(width, device=mask.device)
        last = mask.shape[1] - 1
        return mask.gather(1, positions.clamp_max(last)) & (positions <= last)

    def biases(self, mask: Tensor, dtype: torch.dtype) -> list[Tensor | None]:
        """What is added to the scores of each group, ``[1, queries, length]``; ``None`` where all is seen."""
        ordered = mask[on_device(self.order, mask.device)]
        seen = [ordered[part, :length] for _, length, part in self.groups]
        return [None if each.all() else additive(each[None], dtype) for each in seen]


def rank_within_group(rows: Tensor) -> Tensor:
    """Number of equal ones before each, both ``[queries]``."""
    order = torch.argsort(rows, stable=True)
    counts = torch.bincount(rows)
    ranks = torch.empty_like(rows)
    ranks[order] = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows[order]]
    return ranks


@dataclass  # torch 2.6 cannot trace slots that are inherited
class SharedPast(Past):
    """A past that several queries read together.

    All queries of a row, or of a prompt, are folded into its query length, so that it is read once. Rows and
    prompts have a softmax each, which are put together by their sums (Hydragen, arXiv 2402.05099).

    Attributes:
        layout: Which query reads which row; ``None`` where query i reads row i, itself included.
        prompts: What comes before the rows' columns; ``None`` where the rows hold everything.
    """

    layout: SharedLayout | None = None
    prompts: SharedPrompts | None = None
    _biases: dict[int, tuple[Tensor, tuple[Tensor, list[Tensor | None]]]] = field(default_factory=dict)
    _places: Tensor | None = None

    @classmethod
    def of(
        cls, live: int, width: int, columns: Tensor, slots: Tensor | None, prompts: Tensor | None
    ) -> SharedPast:
        """The past of queries that attend to the rows ``slots``, ``[queries]``.

        Args:
            live: Rows that the cache holds.
            width: Columns of them that are read.
            columns: Column of its row where each query's own position is, ``[queries]``.
            slots: ``None`` where query i reads row i.
            prompts: The prompt of each and how many of its positions are stored with it, ``[2, queries]``;
                ``None`` if nothing is.
        """
        layout = None if slots is None else SharedLayout.of(slots, live)
        return cls(live, width, columns, layout, None if prompts is None else SharedPrompts(*prompts))

    def to(self, device: torch.device) -> SharedPast:
        """The same on a device."""
        layout = None if self.layout is None else self.layout.to(device)
        return SharedPast(self.live, self.width, on_device(self.columns, device), layout, self.prompts)

    def read(self, stores: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The keys and values of the rows that are read, ``[rows, key_heads, width, dim]``."""
        if self.layout is None:
            return Past.read(self, stores)
        return self.layout.read(stores[0], self.width), self.layout.read(stores[1], self.width)

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
        """Attention of the queries of a layer, as of :meth:`Past.attend`."""
        queries, heads, _, dim = query.shape
        key_heads = rows[0].shape[1]
        scaling = dim**-0.5 if scaling is None else scaling
        grouped = query.view(queries, key_heads, heads // key_heads, dim)
        bias, biases = self.biases(mask, query.dtype)
        keys, values = self.read(rows)
        layout = self.layout
        sums: list[Tensor] = []  # ln of the sum of exp of the scores, [queries, key_heads, groups]
        if layout is None:
            scores = scores_of(grouped[:, :, None], keys, bias, scaling, softcap)
            weights = scores.softmax(-1)
            out = mixed(weights, values)[:, :, 0]
            sums.append(log_sums(scores, weights)[:, :, 0])
        else:
            scores = scores_of(layout.scatter(grouped).transpose(1, 2), keys, bias, scaling, softcap)
            # A query's own score takes the column of its position, where the past has another key, or none.
            place = self._places_of(layout)[:, None, :, None, None].expand(*scores.shape[:-1], 1)
            own = capped(at_least_fp32((grouped * key).sum(-1)) * scaling, softcap)
            scores.scatter_(-1, place, layout.scatter(own).transpose(1, 2)[..., None])
            weights = scores.softmax(-1)
            if self.prompts is not None or sinks is not None:
                sums.append(layout.gather(log_sums(scores, weights).transpose(1, 2)))
            share = layout.gather(weights.gather(-1, place).transpose(1, 2)).to(value.dtype)
            out = mixed(weights.scatter_(-1, place, 0.0), values).transpose(1, 2)
            out = layout.gather(out) + share * value
        parts = [out]  # [queries, key_heads, groups, value_dim]
        if self.prompts is not None and prompts is not None:
            read, total = _of_prompts(grouped, self.prompts, *prompts, biases, scaling, softcap)
            parts.append(read)
            sums.append(total)
        if sinks is not None:
            sums.append(of_heads(sinks, key_heads).expand_as(sums[0]))
        if len(sums) > 1:
            shares = torch.stack(sums).softmax(0)[..., None]
            out = torch.stack([share * part for share, part in zip(shares, parts, strict=False)]).sum(0)
        return out.to(values.dtype).reshape(queries, 1, heads, -1)

    def biases(self, mask: Tensor, dtype: torch.dtype) -> tuple[Tensor, list[Tensor | None]]:
        """What is added to the scores of rows, ``[rows, ranks, width]``, and of the groups of prompts.

        Made once per mask, of which a model has as many as it has kinds of layers.

        Args:
            mask: True for the positions that each query sees, ``[queries, 1, 1, positions]``.
            dtype: Type of the queries.
        """
        if torch.compiler.is_compiling():  # a compiled layer knows no other
            return self._new_biases(mask[:, 0, 0], dtype)
        known = self._biases.get(id(mask))
        if known is None:
            # The mask is kept beside the result: its id must not be given away meanwhile.
            known = self._biases[id(mask)] = (mask, self._new_biases(mask[:, 0, 0], dtype))
        return known[1]

    def _new_biases(self, mask: Tensor, dtype: torch.dtype) -> tuple[Tensor, list[Tensor | None]]:
        prompts, layout = self.prompts, self.layout
        own = mask if prompts is None else prompts.own(mask, self.width)
        bias = additive(own[:, None] if layout is None else layout.scatter(own), dtype)
        return bias, [] if prompts is None else prompts.biases(mask, dtype)

    def _places_of(self, layout: SharedLayout) -> Tensor:
        """:attr:`columns` as laid out, ``[rows, ranks]``."""
        if self._places is None or torch.compiler.is_compiling():
            self._places = layout.scatter(self.columns)
        return self._places


def _of_prompts(
    query: Tensor,
    prompts: SharedPrompts,
    keys: Tensor,
    values: Tensor,
    biases: Sequence[Tensor | None],
    scaling: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Attention to prompts, one after the other, since rows share them unevenly.

    Returns:
        ``[queries, key_heads, groups, value_dim]``; and ln of the sum of exp of the scores, ``[queries,
        key_heads, groups]``, -inf of queries without a prompt.
    """
    queries, key_heads, groups, _ = query.shape
    ordered = query[prompts.order].transpose(0, 1)[None]  # [1, key_heads, queries, groups, dim]
    out = values.new_zeros(queries, key_heads, groups, values.shape[-1])
    sums = at_least_fp32(values.new_full((queries, key_heads, groups), -torch.inf))
    for (slot, length, part), bias in zip(prompts.groups, biases, strict=True):
        scores = scores_of(ordered[:, :, part], keys[slot : slot + 1, :, :length], bias, scaling, softcap)
        weights = scores.softmax(-1)
        places = prompts.order[part]
        out[places] = mixed(weights, values[slot : slot + 1, :, :length])[0].transpose(0, 1)
        sums[places] = log_sums(scores, weights)[0].transpose(0, 1)
    return out, sums
