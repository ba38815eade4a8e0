"""A pass through the layers: which rows take part in which of them, and which keys and values they see.

A pass is what the model is given as its cache, and what the hooks on its layers and its attention ask. It
owns the addressing; keys and values are stored in a :class:`~lm_eval_eglr.decoding.model.kv_cache.KVCache`.

Two kinds recurse, and do the same. In a :class:`DynamicPass` a recursion joins by being appended, so that the
layers below its span cost nothing for it. In a :class:`StaticPass` all rows run through all layers and one
joins by being replaced: neither tensors nor shapes depend on who joins where, so that it can be captured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from lm_eval_eglr.decoding.model.attention import LayerCache, Past, row_attention
from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.model.shared_past import SharedPast
from lm_eval_eglr.decoding.numerics import on_device


@dataclass(frozen=True, slots=True)
class RecursionInputs:
    """The recursions of a pass: its last rows, which join it at an upper layer.

    Attributes:
        spans: Layers that are applied to each, deepest first.
        inputs: What each one's first layer is applied to, ``[recursions, dim]``.
        outputs: Their final states from their last layer's output, both ``[recursions, dim]``.
    """

    spans: Sequence[int]
    inputs: Tensor
    outputs: Callable[[Tensor], Tensor]


@dataclass(slots=True)
class Residuals:
    """The residual stream of a pass of single queries, where recursions may begin.

    Attributes:
        depth: Number N of layers.
        inputs: What each layer was applied to, ``[rows, 1, dim]``, by its number.
        hidden: x_N, the output of the last one, ``[rows, 1, dim]``.
    """

    depth: int
    inputs: dict[int, Tensor] = field(default_factory=dict)
    hidden: Tensor = field(default_factory=lambda: torch.empty(0))

    def before(self, span: int) -> Tensor:
        """x_{N-span}, ``[rows, 1, dim]``; x_N for span 0."""
        return self.inputs[self.depth - span] if span else self.hidden


@dataclass(frozen=True, slots=True)
class PassOutput:
    """What a pass returns.

    Attributes:
        logprobs: ln p of every row and recursion, ``[rows + recursions, vocab]``, in fp32 at least.
        states: h_k of the recursions, ``[recursions, dim]``.
        residuals: The residual stream of the rows.
        work: Layers and heads that each row took beyond those that every token takes, ``[rows, 2]``, on the
            host; ``None`` for none.
        statistics: Of the distributions, ``[4, rows + recursions]``, where the runner has computed them.
    """

    logprobs: Tensor
    states: Tensor
    residuals: Residuals
    work: np.ndarray | None = None
    statistics: Tensor | None = None


class Pass(Cache):
    """What all passes have: rows with an offset each, and columns that are read.

    Attributes:
        bypassed: Layers, from the first on, that hand on what they are given.
        residuals: The residual stream; empty if it is not recorded.
        states: Final states of the recursions, once they have passed the last layer.
        compilable: Whether its layers may be compiled: its shapes are of few kinds.
    """

    compilable = False

    def __init__(self, cache: KVCache, offsets: Tensor, width: int) -> None:
        """Prepares a pass.

        Args:
            cache: Where keys and values are stored.
            offsets: Position of each row's first query, ``[rows]``.
            width: Columns that are read.
        """
        super().__init__(layers=[])
        self.cache = cache
        self.width = width
        self.offsets = offsets
        self.bypassed = 0
        self.residuals = Residuals(0)
        self.states = torch.empty(0)

    # What the model's layers do.

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Stores ``[rows, key_heads, queries, dim]``; returns what :meth:`attend` is given of them."""
        self._stores_of(layer_idx, key_states, value_states)
        return self.layer(layer_idx).update(key_states, value_states, layer_idx)

    def prompts_of(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """The layer's keys and values of all prompts; ``None`` if there are none."""
        prompts = self.cache.prompts
        if prompts is None or layer not in prompts.keys:
            return None
        return prompts.keys[layer], prompts.values[layer]

    def _stores_of(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's part of the cache, which its first states make."""
        if layer not in self.cache.keys:
            self.cache.add_layer(layer, keys, values)
        return self.cache.keys[layer], self.cache.values[layer]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options: Any
    ) -> Tensor:
        """Attention of a layer's queries, ``[rows, queries, heads, dim]``."""
        return self.layer(layer).attend(query, key, value, mask, **options)

    def layer(self, number: int) -> LayerCache:
        """What a layer sees of a pass of single queries, once the cache has its stores."""
        raise NotImplementedError

    def enter_layer(self, number: int, hidden: Tensor, given: Any) -> tuple[Tensor, Any] | None:
        """What a layer is called with instead of its input and what else is given; ``None`` for the same."""
        return None

    def enter_norm(self, hidden: Tensor) -> Tensor:
        """What the final norm is called with."""
        return hidden

    # What transformers' mask code asks of a cache.

    def get_query_offset(self, layer_idx: int = 0) -> Tensor:  # type: ignore[override]
        """Position of each row's first query, ``[rows]``."""
        return self.offsets

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Number of columns read, and the first of them."""
        return self.width, 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Longest row of the pass; positions are always passed explicitly."""
        return self.width


class PrefillPass(Pass):
    """Rows in step read positions ``column .. column + queries - 1``; nothing of them is recursed.

    Args:
        cache: Where keys and values are stored.
        rows: The rows.
        column: First position.
        queries: Number of positions.
        begins: Positions that are stored with their prompts, at most ``column``.
        prompts: Their prompts, ``[rows]``.
    """

    def __init__(
        self,
        cache: KVCache,
        rows: slice,
        column: int,
        queries: int,
        begins: int = 0,
        prompts: Sequence[int] = (),
    ) -> None:
        super().__init__(cache, torch.full((rows.stop - rows.start,), column), column + queries)
        self._rows = rows
        self._columns = slice(column - begins, column - begins + queries)
        self._begins = begins
        self._prompts = torch.tensor(prompts)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Stores the rows' states and returns views of all that they attend to."""
        keys, values = self._stores_of(layer_idx, key_states, value_states)
        keys[self._rows, :, self._columns] = key_states
        values[self._rows, :, self._columns] = value_states
        keys, values = (store[self._rows, :, : self._columns.stop] for store in (keys, values))
        prompts = self.prompts_of(layer_idx)
        if not self._begins or prompts is None:
            return keys, values
        before = [store[on_device(self._prompts, store.device), :, : self._begins] for store in prompts]
        return torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options: Any
    ) -> Tensor:
        """Plain attention to these views."""
        return row_attention(query, key, value, mask, **options)


class DynamicPass(Pass):
    """A pass of single queries in which each layer runs just the rows that take part in it.

    Args:
        cache: Where keys and values are stored; those of recursions are not.
        slots: Row of the cache of each row, ``[rows + recursions]``; ``None`` where all live rows run, in
            their order, and nothing else.
        positions: Position of each, ``[rows + recursions]``.
        live: Rows that the cache holds.
        depth: Number of layers.
        recursions: The last rows, which join above; ``None`` if there are none.
        stored: Whether the rows' keys and values are stored.
        stores: Row of the cache where they are stored, ``[rows]``; by default the one that each attends to.
        prompts: The prompt of each and how many of its positions are stored with it,
            ``[2, rows + recursions]``; ``None`` if nothing is.
    """

    def __init__(
        self,
        cache: KVCache,
        slots: Tensor | None,
        positions: Tensor,
        live: int,
        depth: int,
        recursions: RecursionInputs | None = None,
        stored: bool = True,
        stores: Tensor | None = None,
        prompts: Tensor | None = None,
    ) -> None:
        super().__init__(cache, positions, int(positions.max()) + 1)
        self.residuals = Residuals(depth)
        self._prompts = prompts
        self._columns = positions if prompts is None else positions - prompts[1]
        self._own_width = self.width if prompts is None else int(self._columns.max()) + 1
        self._slots, self._stores, self._live = slots, stores, live
        self._depth = depth
        self._recursions = recursions
        self._spans = list(recursions.spans) if recursions is not None else []
        self._count = len(positions)
        self._plain = self._count - len(self._spans)
        self._stored = self._plain if stored else 0
        # Rows that share a past come in too many shapes.
        self.compilable = stored and slots is None and prompts is None
        # The first layer that runs: where there are no others, that of the deepest recursion.
        self.bypassed = 0 if self._plain or not self._spans else depth - self._spans[0]
        self._joined = self._count  # rows that take part in the layer that runs next
        self._taken: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._indices: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._pasts: dict[tuple[torch.device, int], Past] = {}

    def layer(self, number: int) -> LayerCache:
        """The rows that have joined so far."""
        rows = self.cache.keys[number], self.cache.values[number]
        prompts = None if self._prompts is None else self.prompts_of(number)
        return LayerCache(rows, prompts, *self._addresses(rows[0].device), self._past(rows[0].device))

    def _addresses(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Slots and columns of what is stored, on ``device``; made once per pass."""
        if device not in self._indices:
            slots = torch.arange(self._stored) if self._slots is None else self._slots[: self._stored]
            at = slots if self._stores is None else self._stores, self._columns[: self._stored]
            self._indices[device] = on_device(at[0], device), on_device(at[1], device)
        return self._indices[device]

    def _past(self, device: torch.device) -> Past:
        """What the rows that have joined attend to, made once per pass and number of them."""
        key = (device, self._joined)
        if key not in self._pasts:
            width, columns = self._own_width, self._columns[: self._joined]
            if self._slots is None and self._prompts is None:
                self._pasts[key] = Past(self._live, width, on_device(columns, device))
            else:
                slots = None if self._slots is None else self._slots[: self._joined]
                prompts = None if self._prompts is None else self._prompts[:, : self._joined]
                self._pasts[key] = SharedPast.of(self._live, width, columns, slots, prompts).to(device)
        return self._pasts[key]

    def enter_layer(self, number: int, hidden: Tensor, given: Any) -> tuple[Tensor, Any] | None:
        """Records the layer's input and lets those whose span begins here join."""
        self.residuals.inputs[number] = hidden
        if self._recursions is None or number < self.bypassed:
            return None
        if number == self.bypassed:
            hidden = hidden[: self._plain]  # the embedding was given all rows
        joined = self._plain + sum(span >= self._depth - number for span in self._spans)
        if joined > len(hidden):
            here = self._recursions.inputs[len(hidden) - self._plain : joined - self._plain, None]
            hidden = torch.cat([hidden, here.to(hidden.device)])
        self._joined = joined
        return hidden, self._take(given, joined)

    def enter_norm(self, hidden: Tensor) -> Tensor:
        """Records x_N; that of recursions is what the update rule makes of it."""
        self.residuals.hidden = hidden
        if self._recursions is None:
            return hidden
        self.states = self._recursions.outputs(hidden[self._plain :, 0])
        return torch.cat([hidden[: self._plain], self.states[:, None].to(hidden.device)])

    def _take(self, value: Any, count: int) -> Any:
        """What a layer is called with, for the first ``count`` rows; each tensor is taken once."""
        if isinstance(value, Tensor):
            if count == self._count or value.dim() == 0 or value.shape[0] != self._count:
                return value
            key = (id(value), count)
            if key not in self._taken:
                # The value is kept beside what was taken: its id must not be given away meanwhile.
                self._taken[key] = (value, value[:count])
            return self._taken[key][1]
        if isinstance(value, (tuple, list)):
            return type(value)(self._take(item, count) for item in value)
        if isinstance(value, dict):
            return {name: self._take(item, count) for name, item in value.items()}
        return value


@dataclass(frozen=True, slots=True)
class StaticAddresses:
    """Addresses of a pass of fixed shape; the tensors are on the cache's device, ``[rows]`` each.

    Attributes:
        past: What each attends to.
        stores: Row of the cache where its key and value go, the scratch slot for none.
        first: Layer at which each row joins; -1 of those that begin with their embedding.
    """

    past: Past
    stores: Tensor
    first: Tensor


class StaticPass(Pass):
    """A pass of single queries in which every layer runs all rows.

    Args:
        cache: Where keys and values are stored.
        addresses: Which row is where.
        depth: Number of layers.
        spans: Spans at which recursions may join.
        inputs: What the layer at which a row joins is applied to, ``[rows, dim]``.
        outputs: x_N of all rows as their update rule makes it, ``[rows, dim]`` to ``[rows, dim]``.
        bypassed: Layers, from the first on, that no row needs.
    """

    def __init__(
        self,
        cache: KVCache,
        addresses: StaticAddresses,
        depth: int,
        spans: Collection[int],
        inputs: Tensor,
        outputs: Callable[[Tensor], Tensor],
        bypassed: int = 0,
    ) -> None:
        super().__init__(cache, addresses.past.columns, addresses.past.width)
        self.compilable = True
        self.residuals = Residuals(depth)
        self.bypassed = bypassed
        self._at = addresses
        self._stores = addresses.stores
        self._layers = {depth - span for span in spans}
        self._inputs = inputs
        self._outputs = outputs

    def layer(self, number: int) -> LayerCache:
        """Every row's states go where this layer stores them."""
        rows = self.cache.keys[number], self.cache.values[number]
        return LayerCache(rows, None, self._stores, self._at.past.columns, self._at.past)

    def enter_layer(self, number: int, hidden: Tensor, given: Any) -> tuple[Tensor, Any] | None:
        """Records the layer's input where a span begins, and replaces that of the rows that join."""
        if number < self.bypassed:
            return None
        if number == self.bypassed or number in self._layers:
            # What the layers before its first one made of a row is not kept.
            kept = self._at.first <= number
            self._stores = torch.where(kept, self._at.stores, self.cache.scratch_slot)
        if number not in self._layers:
            return None
        self.residuals.inputs[number] = hidden
        inputs = self._inputs[:, None].to(hidden.dtype)
        return torch.where((self._at.first == number)[:, None, None], inputs, hidden), given

    def enter_norm(self, hidden: Tensor) -> Tensor:
        """Records x_N; that of recursions is what the update rule makes of it."""
        self.residuals.hidden = hidden
        self.states = self._outputs(hidden[:, 0])
        return self.states[:, None]
