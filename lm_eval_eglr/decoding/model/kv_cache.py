"""Keys and values of the live rows: dense, preallocated, each row at a length of its own; and how many fit.

Storage only: which rows and columns a pass reads and writes is the pass's business.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence

import numpy as np
import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

MOST_ROWS = 256  # beyond it throughput hardly grows and a step's logits do
FREE_SHARE = 0.6  # what is left is for activations and for everyone else
# What torch's allocator on a CPU says; it raises no type of its own.
CPU_MESSAGES = ("can't allocate memory", "not enough memory")
FEW_ROWS = 4  # rows that are copied one by one on a GPU

RowStates = dict[int, tuple[Tensor, Tensor]]
"""Keys and values ``[key_heads, length, dim]`` of one row by layer."""


class KVCache:
    """Keys and values of all layers, ``[capacity, key_heads, length, dim]`` each; column = position.

    Live rows fill the slots 0..n-1 without holes, so that a pass over all of them reads views.

    Attributes:
        max_rows: Most rows that it grows to by itself.
        growth: How often the stores have been made anew; tensors from before are not the cache's any more.
        keys: By layer; with one row more than the capacity, see :attr:`scratch_slot`.
        values: Likewise.
        rows: Rows that there is room for.
        length: Positions that there is room for.
    """

    def __init__(self, max_rows: int) -> None:
        """Makes an empty cache that will not have more than ``max_rows`` rows."""
        self.max_rows = max_rows
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
            grown_length = max(length, min(2 * self.length, self.length + 1024))
        self.growth += 1
        self.rows, self.length = grown_rows, grown_length
        for store in (self.keys, self.values):
            for layer, old in store.items():
                new = _zeros(old, self._shape(old))
                new[:before, :, : old.shape[2]] = old[:before]
                store[layer] = new

    def add_layer(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Makes the stores of a layer for states like these, ``[rows, key_heads, queries, dim]``."""
        self.keys[layer] = _zeros(keys, self._shape(keys))
        self.values[layer] = _zeros(values, self._shape(values))

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
        for tensor in tensors:
            tensor[list(targets), :, :length] = tensor[list(sources), :, :length]

    def read_row(self, row: int, length: int) -> RowStates:
        """Copies a row's first ``length`` positions out of the cache."""
        return {
            layer: (keys[row, :, :length].clone(), self.values[layer][row, :, :length].clone())
            for layer, keys in self.keys.items()
        }

    def write_row(self, row: int, states: RowStates) -> None:
        """Writes what :meth:`read_row` returned to the first positions of a row."""
        for layer, (keys, values) in states.items():
            self.keys[layer][row, :, : keys.shape[1]] = keys
            self.values[layer][row, :, : values.shape[1]] = values

    def clear_row(self, row: int) -> None:
        """Makes a row's keys and values zeros again."""
        for store in (self.keys, self.values):
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


def bytes_per_token(model: PreTrainedModel, layers: int | None = None) -> int:
    """Keys and values of one position, bytes; ``layers`` replaces the number of layers that the model has."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    count = config.num_hidden_layers if layers is None else layers
    size: int = 2 * count * heads * dim * model.dtype.itemsize
    return size


def rows_that_fit(model: PreTrainedModel, length: int, layers: int | None = None) -> int:
    """Rows of ``length`` positions that fit into the free memory of the model's device, 1 to 256.

    Counts keys and values, and the fp32 distributions of a step at four of them per row. A recurrent block
    keeps them for each of its iterations, so ``layers`` says how many sets of them a position has.
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = psutil.virtual_memory().available
    row = length * bytes_per_token(model, layers) + 4 * 4 * model.config.get_text_config().vocab_size
    return max(1, min(MOST_ROWS, int(FREE_SHARE * free / row)))


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
