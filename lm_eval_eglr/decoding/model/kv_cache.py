"""Keys and values of the live rows: dense, preallocated, each row at a length of its own; and how many fit.

Storage only: which rows and columns a pass reads and writes is the pass's business.
"""

from __future__ import annotations

import gc
import inspect
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np
import psutil
import torch
from torch import Tensor, nn

# Columns that passes are padded to on a GPU, and that rows have there: graphs are captured for few sizes.
COLUMNS = (128, 256, 384, 512, 768, 1024)
MOST_ROWS = 256  # beyond it throughput hardly grows and a step's logits do
FREE_SHARE = 0.6  # what is left is for activations and for everyone else
# What torch's allocator on a CPU says; it raises no type of its own.
CPU_MESSAGES = ("can't allocate memory", "not enough memory")
FEW_ROWS = 4  # rows that are copied one by one on a GPU


class KVCache:
    """Keys and values of all layers, ``[capacity, key_heads, length, dim]`` each.

    Live rows fill the slots 0..n-1 without holes, so that a pass over all of them reads views. Their columns
    are the positions that follow those of their prompt, where that is stored once for all rows of a pool;
    else all positions.

    Attributes:
        max_rows: Most rows that it grows to by itself.
        expected: Positions that rows may come to need. Room for them is made at once where there is the
            memory, so that nothing is copied later, nor graphs captured again and again.
        growth: How often the stores have been made anew; tensors from before are not the cache's any more.
        prompts: Prompts, one a row; ``None`` in a cache that has none, as that of prompts.
        keys: By layer; with one row more than the capacity, see :attr:`scratch_slot`.
        values: Likewise.
        rows: Rows that there is room for.
        length: Positions that there is room for.
    """

    def __init__(
        self,
        max_rows: int,
        sizes: Mapping[torch.device, int] | None = None,
        prompts: KVCache | None = None,
    ) -> None:
        """Makes an empty cache that will not have more than ``max_rows`` rows.

        Args:
            max_rows: Most rows that it grows to by itself.
            sizes: Bytes of one position by device; without them nothing is reserved ahead of need.
            prompts: A cache for prompts.
        """
        self.max_rows = max_rows
        self.prompts = prompts
        self.expected = 0
        self._sizes = dict(sizes or {})
        self.growth = 0
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.rows = 0
        self.length = 0

    @property
    def scratch_slot(self) -> int:
        """A row that nobody reads, for what is not to be stored."""
        return self.rows

    def reserve(self, rows: int, length: int) -> None:
        """Makes room for that many rows and positions; what is stored stays. Growth is geometric."""
        if rows <= self.rows and length <= self.length:
            return
        before = self.rows
        # On a CPU, pages that no row reaches cost nothing, so that all rows are made at once.
        on_cpu = all(keys.device.type == "cpu" for keys in self.keys.values())
        grown_rows = before
        if rows > before:
            grown_rows = max(rows, self.max_rows if on_cpu else min(2 * before, self.max_rows))
        grown_length = self.length
        if length > self.length:
            grown_length = self._rounded(max(length, min(2 * self.length, self.length + 1024)))
            expected = self._rounded(self.expected)
            if expected > grown_length and self._fits(grown_rows, expected):
                grown_length = expected
        self.growth += 1
        self.rows, self.length = grown_rows, grown_length
        for store in (self.keys, self.values):
            for layer, old in store.items():
                new = _zeros(old, self._shape(old))
                new[:before, :, : old.shape[2]] = old[:before]
                store[layer] = new

    def _rounded(self, length: int) -> int:
        on_gpu = any(device.type == "cuda" for device in self._sizes)
        return padded(length, COLUMNS) if on_gpu else length

    def _fits(self, rows: int, length: int) -> bool:
        """Whether devices have memory for so much, by the share that :func:`rows_that_fit` counts on."""
        return bool(self._sizes) and all(
            size * (rows + 1) * length <= FREE_SHARE * free_memory(device)
            for device, size in self._sizes.items()
        )

    @property
    def bytes_per_token(self) -> dict[torch.device, int]:
        """Keys and values of one position in all layers, bytes, by the device that they lie on."""
        found: dict[torch.device, int] = {}
        for tensor in (*self.keys.values(), *self.values.values()):
            size = tensor.shape[1] * tensor.shape[3] * tensor.element_size()
            found[tensor.device] = found.get(tensor.device, 0) + size
        return found

    def add_layer(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Makes the stores of a layer for states like these, ``[rows, key_heads, queries, dim]``."""
        self.keys[layer] = _zeros(keys, self._shape(keys))
        self.values[layer] = _zeros(values, self._shape(values))

    def add_layers_of(self, other: KVCache) -> None:
        """Makes the stores of all layers that another cache has."""
        for layer, keys in other.keys.items():
            if layer not in self.keys:
                self.add_layer(layer, keys, other.values[layer])

    def _shape(self, states: Tensor) -> tuple[int, int, int, int]:
        return (self.rows + 1, states.shape[1], self.length, states.shape[3])

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copies the first ``length`` positions of each source row to its target row.

        Sources and targets must be disjoint.
        """
        tensors = [*self.keys.values(), *self.values.values()]
        if len(sources) <= FEW_ROWS and all(tensor.is_cuda for tensor in tensors):
            # Whole rows, of all layers at once: the time of few copies is that of launching them.
            for source, target in zip(sources, targets, strict=True):
                torch._foreach_copy_([each[target] for each in tensors], [each[source] for each in tensors])
            return
        if all(tensor.device.type == "cpu" for tensor in tensors):
            # numpy, which takes a fraction of the time of torch to copy a row, and row by row, so that no
            # memory is needed between.
            for store in (tensor.view(torch.uint8).numpy() for tensor in tensors):
                for source, target in zip(sources, targets, strict=True):
                    store[target, :, :length] = store[source, :, :length]
            return
        for tensor in tensors:
            tensor[list(targets), :, :length] = tensor[list(sources), :, :length]

    def copy_from(self, other: KVCache, source: int, target: int, length: int) -> None:
        """Copies the first ``length`` columns of a row of another cache to a row of this one."""
        self.add_layers_of(other)
        for mine, its in ((self.keys, other.keys), (self.values, other.values)):
            for layer, store in its.items():
                mine[layer][target, :, :length] = store[source, :, :length]

    def clear_rows(self, rows: Sequence[int]) -> None:
        """Makes the keys and values of rows zeros again."""
        if rows and self.keys:
            tensors = [*self.keys.values(), *self.values.values()]
            torch._foreach_zero_([tensor[row] for row in rows for tensor in tensors])


def padded(count: int, sizes: tuple[int, ...]) -> int:
    """The next of the sizes, or of the multiples of a quarter of the last one."""
    place = bisect_left(sizes, count)
    if place < len(sizes):
        return sizes[place]
    step = sizes[-1] // 4
    return -(-count // step) * step


def cache_argument(module: nn.Module) -> str:
    """Name of the argument by which a module of transformers takes its cache."""
    # The new one from transformers 5.24 on; the old one goes in 5.40.
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros of a tensor's type and device.

    Zeros, not what memory held: a masked column's weight is 0, and 0 times NaN is NaN. On a CPU they come
    from calloc, so that pages which no row reaches cost neither time nor memory.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    count = math.prod(shape) * like.element_size()
    return torch.from_numpy(np.zeros(count, np.uint8)).view(like.dtype).view(shape)


def rows_that_fit(bytes_per_token: Mapping[torch.device, int], length: int, vocabulary: int) -> int:
    """Rows of ``length`` positions that fit into the free memory of the devices of the cache, 1 to 256.

    Counts keys and values, and on every device the fp32 distributions of a step: four of them per row where
    it is computed, and on a GPU as many again, since what a captured pass has used stays its own.

    Args:
        bytes_per_token: Keys and values of one position, by device.
        length: Positions of a row.
        vocabulary: Size of the vocabulary.
    """
    rows = MOST_ROWS
    for device, size in bytes_per_token.items():
        distributions = 8 if device.type == "cuda" else 4
        row = length * size + 4 * distributions * vocabulary
        rows = min(rows, int(FREE_SHARE * free_memory(device) / row))
    return max(1, rows)


def free_memory(device: torch.device) -> int:
    """Free memory of a device, bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free: int = psutil.virtual_memory().available
    return free


class OutOfMemory(RuntimeError):
    """Memory ran out although no fewer rows can be decoded at once."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's or the host's memory is used up."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in CPU_MESSAGES)


def release_memory() -> None:
    """Gives back what nobody holds any more, so that a smaller attempt can have it."""
    gc.collect()  # the failed step's tensors hang on the frames of its traceback, which are cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
