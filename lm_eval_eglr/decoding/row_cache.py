"""Key-value cache of the live rows: dense, preallocated, each row at a length of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from lm_eval_eglr.decoding.item_past import ItemPast, ItemPlaces

PAST = "eglr_past"
"""Attribute of the key states that an item's attention gets; a model hands them on as they are."""


FEW = 4  # rows that are copied one by one on a GPU

RowStates = dict[int, tuple[Tensor, Tensor]]
"""Keys and values ``[key_heads, length, dim]`` of one row by layer."""


@dataclass(slots=True)
class _Access:
    """Which rows and columns the running pass reads and writes."""

    rows: slice | Tensor  # a slice of live rows, or row numbers [items]
    offsets: Tensor  # position of each row's first query, [rows]
    queries: int
    width: int  # columns that are read
    column: int  # first column of a prefill, whose rows are in step
    stored: int  # so many of the rows, the first ones, have their keys and values stored


@dataclass(frozen=True, slots=True)
class FixedStep:
    """A pass of fixed shape over single tokens; its tensors are on the cache's device, ``[rows]`` each.

    Attributes:
        live: Rows of the cache that are read.
        width: Columns of them that are read.
        positions: Position of each row.
        stores: Row of the cache where its key and value go, :attr:`RowCache.spare` for none.
        slots: Row of the cache that it attends to.
        places: Its place among those that attend to the same one, below ``most``; ``None`` where row i
            attends to row i alone, itself included.
        most: Number of places.
    """

    live: int
    width: int
    positions: Tensor
    stores: Tensor
    slots: Tensor
    places: Tensor | None
    most: int


class RowCache(Cache):
    """Keys and values of all layers, ``[capacity, key_heads, length, dim]`` each; column = position.

    Live rows fill the slots 0..n-1 without holes, so the plain pass reads views and copies nothing.
    Before a pass the caller says with :meth:`begin_prefill`, :meth:`begin_step`, :meth:`begin_items` or
    :meth:`begin_fixed` which rows take part; the model's layers then call :meth:`update`.

    Attributes:
        max_rows: Most rows that it grows to by itself.
        growth: How often the stores have been made anew: tensors of before are not the cache's any more.
    """

    def __init__(self, max_rows: int) -> None:
        """Makes an empty cache that will not have more than ``max_rows`` rows."""
        super().__init__(layers=[])
        self.max_rows = max_rows
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._rows = 0
        self._length = 0
        self.growth = 0
        self._access: _Access | None = None
        self._fixed: FixedStep | None = None
        self._joined = 0  # items that take part in the layer that runs next
        self._live = 0  # rows that the cache holds
        self._indices: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._places: dict[tuple[torch.device, int], ItemPlaces] = {}

    def reserve(self, rows: int, length: int) -> None:
        """Makes room for that many rows and positions; what is stored stays. Growth is geometric."""
        if rows <= self._rows and length <= self._length:
            return
        before = self._rows
        self.growth += 1
        if rows > self._rows:
            self._rows = max(rows, min(2 * self._rows, self.max_rows))
        if length > self._length:
            self._length = max(length, min(2 * self._length, self._length + 1024))
        for store in (self._keys, self._values):
            for layer, old in store.items():
                new = _zeros(old, self._shape(old))
                new[:before, :, : old.shape[2]] = old[:before]
                store[layer] = new

    def begin_prefill(self, rows: slice, column: int, queries: int) -> None:
        """The rows of ``rows`` read positions ``column .. column + queries - 1``."""
        offsets = torch.full((rows.stop - rows.start,), column)
        self._begin(_Access(rows, offsets, queries, column + queries, column, len(offsets)))

    def begin_step(self, positions: Tensor) -> None:
        """All live rows read one token, row i at ``positions[i]``."""
        width = int(positions.max()) + 1
        self._begin(_Access(slice(0, len(positions)), positions, 1, width, -1, len(positions)))

    def begin_items(self, rows: Tensor, positions: Tensor, stored: int, live: int) -> None:
        """Item i runs at position ``positions[i]`` of row ``rows[i]``, which may occur several times.

        An item attends to its row's past and to its own new key and value, which take the place of those
        stored at its position.

        Args:
            rows: Row per item, ``[items]``.
            positions: Position per item, ``[items]``.
            stored: Of so many items, the first ones, the new key and value are stored.
            live: Rows that the cache holds.
        """
        self._live = live
        self._begin(_Access(rows, positions, 1, int(positions.max()) + 1, -1, stored))

    def begin_fixed(self, step: FixedStep) -> None:
        """A pass whose shape is fixed runs; see :class:`FixedStep`."""
        rows = slice(0, step.live) if step.places is None else step.slots
        count = len(step.positions)
        self._begin(_Access(rows, step.positions, 1, step.width, -1, count))
        self._fixed = step
        device = step.positions.device
        self._indices[device] = (step.stores, step.positions)
        if step.places is not None:
            self._places[device, count] = ItemPlaces(
                slice(0, step.live), step.slots, step.places, step.live, step.most, step.positions
            )

    def store_rows(self, kept: Tensor) -> None:
        """Of a fixed pass, the layers that run next store the keys and values of these rows, ``[rows]``."""
        assert self._fixed is not None
        positions = self._fixed.positions
        stores = torch.where(kept, self._fixed.stores, self.spare)
        self._indices[positions.device] = (stores, positions)

    @property
    def spare(self) -> int:
        """A row that nobody reads, for what is not to be stored."""
        return self._rows

    def limit_items(self, count: int) -> None:
        """Only the first ``count`` items take part in the layers that run next."""
        self._joined = count

    @property
    def width(self) -> int:
        """Columns that the current pass reads."""
        assert self._access is not None
        return self._access.width

    def _shape(self, states: Tensor) -> tuple[int, int, int, int]:
        return (self._rows + 1, states.shape[1], self._length, states.shape[3])

    def _begin(self, access: _Access) -> None:
        self._access = access
        self._joined = len(access.offsets)
        self._indices = {}
        self._places = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Stores ``[rows, key_heads, queries, dim]`` and returns what the queries attend to.

        Items get their own states back; the past that they attend to hangs on the keys, where
        :func:`~lm_eval_eglr.decoding.attention.row_attention` finds it.
        """
        access = self._access
        assert access is not None
        if layer_idx not in self._keys:
            for store, states in ((self._keys, key_states), (self._values, value_states)):
                store[layer_idx] = _zeros(states, self._shape(states))
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if access.stored:
            self._store(keys, key_states)
            self._store(values, value_states)
        if isinstance(access.rows, slice):
            return keys[access.rows, :, : access.width], values[access.rows, :, : access.width]
        places = self._item_places(keys.device)
        past = ItemPast(
            _read(keys, places.rows, access.width), _read(values, places.rows, access.width), places
        )
        setattr(key_states, PAST, past)
        return key_states, value_states

    def _store(self, store: Tensor, states: Tensor) -> None:
        access = self._access
        assert access is not None
        if isinstance(access.rows, slice) and access.queries > 1:
            store[access.rows, :, access.column : access.column + access.queries] = states
        else:
            rows, positions = self._row_indices(store.device)
            stored = access.stored
            store[rows[:stored], :, positions[:stored]] = states[:stored, :, 0]

    def _row_indices(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Row numbers and positions of the current pass on ``device``, made once per pass."""
        if device not in self._indices:
            access = self._access
            assert access is not None
            rows = access.rows
            if isinstance(rows, slice):
                rows = torch.arange(rows.start, rows.stop)
            self._indices[device] = (rows.to(device), access.offsets.to(device))
        rows, positions = self._indices[device]
        return rows[: self._joined], positions[: self._joined]

    def _item_places(self, device: torch.device) -> ItemPlaces:
        """Layout of the items that have joined, made once per pass and number of them."""
        key = (device, self._joined)
        if key not in self._places:
            access = self._access
            assert access is not None
            assert isinstance(access.rows, Tensor)
            rows, positions = access.rows[: self._joined], access.offsets[: self._joined]
            self._places[key] = ItemPlaces.of(rows, positions, self._live).to(device)
        return self._places[key]

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copies the first ``length`` positions of each source row to its target row; none is both."""
        tensors = [*self._keys.values(), *self._values.values()]
        if len(sources) <= FEW and all(tensor.is_cuda for tensor in tensors):
            # Whole rows, of all layers at once: the time of few copies is that of launching them.
            for source, target in zip(sources, targets, strict=True):
                torch._foreach_copy_([each[target] for each in tensors], [each[source] for each in tensors])
            return
        for tensor in tensors:
            tensor[list(targets), :, :length] = tensor[list(sources), :, :length]

    def read_row(self, row: int, length: int) -> RowStates:
        """Copies a row's first ``length`` positions out of the cache."""
        return {
            layer: (keys[row, :, :length].clone(), self._values[layer][row, :, :length].clone())
            for layer, keys in self._keys.items()
        }

    def write_row(self, row: int, states: RowStates) -> None:
        """Makes what was read the first positions of a row."""
        for layer, (keys, values) in states.items():
            self._keys[layer][row, :, : keys.shape[1]] = keys
            self._values[layer][row, :, : values.shape[1]] = values

    def clear_row(self, row: int) -> None:
        """Makes a row's keys and values zeros again."""
        for store in (self._keys, self._values):
            for tensor in store.values():
                tensor[row] = 0

    # What transformers' mask code asks of a cache.

    def get_query_offset(self, layer_idx: int = 0) -> Tensor:  # type: ignore[override]
        """Position of each row's first query, ``[rows]``."""
        assert self._access is not None
        return self._access.offsets

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Number of columns read, and the first of them."""
        return self.width, 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Longest row of the current pass; positions are always passed explicitly."""
        return self.width if self._access is not None else 0


def _read(store: Tensor, rows: slice | Tensor, width: int) -> Tensor:
    view = store[:, :, :width]
    return view[rows] if isinstance(rows, slice) else view.index_select(0, rows)


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros of a tensor's type and device.

    Zeros, not what memory held: a masked column's weight is 0, and 0 times NaN is NaN. On a CPU they come
    from calloc, so that pages which no row reaches cost neither time nor memory.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    count = math.prod(shape) * like.element_size()
    return torch.from_numpy(np.zeros(count, np.uint8)).view(like.dtype).view(shape)
