"""Keys and values of the live rows: dense, preallocated, each row at a length of its own.

Storage only: which rows and columns a pass reads and writes is the pass's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

FEW_ROWS = 4  # rows that are copied one by one on a GPU

RowStates = dict[int, tuple[Tensor, Tensor]]
"""Keys and values ``[key_heads, length, dim]`` of one row by layer."""


class KVCache:
    """Keys and values of all layers, ``[capacity, key_heads, length, dim]`` each; column = position.

    Live rows fill the slots 0..n-1 without holes, so that a pass over all of them reads views.

    Attributes:
        max_rows: Most rows that it grows to by itself.
        growth: How often the stores have been made anew; tensors from before are not the cache's any more.
    """

    def __init__(self, max_rows: int) -> None:
        """Makes an empty cache that will not have more than ``max_rows`` rows."""
        self.max_rows = max_rows
        self.growth = 0
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._rows = 0
        self._length = 0

    @property
    def scratch_slot(self) -> int:
        """A row that nobody reads, for what is not to be stored."""
        return self._rows

    def reserve(self, rows: int, length: int) -> None:
        """Makes room for that many rows and positions; what is stored stays. Growth is geometric."""
        if rows <= self._rows and length <= self._length:
            return
        before = self._rows
        grown_rows = max(rows, min(2 * before, self.max_rows)) if rows > before else before
        grown_length = self._length
        if length > self._length:
            grown_length = max(length, min(2 * self._length, self._length + 1024))
        self.growth += 1
        self._rows, self._length = grown_rows, grown_length
        for store in (self._keys, self._values):
            for layer, old in store.items():
                new = _zeros(old, self._shape(old))
                new[:before, :, : old.shape[2]] = old[:before]
                store[layer] = new

    def stores(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The whole stores of a layer, made at its first use for states like ``[rows, key_heads, _, dim]``."""
        if layer not in self._keys:
            self._keys[layer] = _zeros(keys, self._shape(keys))
            self._values[layer] = _zeros(values, self._shape(values))
        return self._keys[layer], self._values[layer]

    def _shape(self, states: Tensor) -> tuple[int, int, int, int]:
        return (self._rows + 1, states.shape[1], self._length, states.shape[3])

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copies the first ``length`` positions of each source row to its target row.

        Sources and targets must be disjoint.
        """
        tensors = [*self._keys.values(), *self._values.values()]
        if len(sources) <= FEW_ROWS and all(tensor.is_cuda for tensor in tensors):
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
        """Writes what :meth:`read_row` returned to the first positions of a row."""
        for layer, (keys, values) in states.items():
            self._keys[layer][row, :, : keys.shape[1]] = keys
            self._values[layer][row, :, : values.shape[1]] = values

    def clear_row(self, row: int) -> None:
        """Makes a row's keys and values zeros again."""
        for store in (self._keys, self._values):
            for tensor in store.values():
                tensor[row] = 0


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros of a tensor's type and device.

    Zeros, not what memory held: a masked column's weight is 0, and 0 times NaN is NaN. On a CPU they come
    from calloc, so that pages which no row reaches cost neither time nor memory.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    count = math.prod(shape) * like.element_size()
    return torch.from_numpy(np.zeros(count, np.uint8)).view(like.dtype).view(shape)
