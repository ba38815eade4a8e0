"""Passes over distributions a few rows at a time, so that what they compute on the way stays in the cache.

A distribution over a vocabulary is 200 kB and more, a step has dozens, and on a CPU an intermediate result of
that size comes as fresh memory from the operating system each time, which takes longer than computing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

ELEMENTS = 1 << 18  # of a block: 1 MiB in fp32


def row_blocks(values: Tensor) -> Iterator[slice]:
    """Blocks of the rows of ``[rows, vocab]`` on a CPU; all rows at once on other devices."""
    rows, width = values.shape
    size = max(1, ELEMENTS // width) if values.device.type == "cpu" else max(1, rows)
    for start in range(0, rows, size):
        yield slice(start, start + size)


def by_blocks(function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """``function(*values)``, ``[rows]``, of tensors ``[rows, vocab]`` whose rows it treats alike."""
    if values[0].dim() != 2 or not len(values[0]):
        return function(*values)
    return torch.cat([function(*(each[block] for each in values)) for block in row_blocks(values[0])])
