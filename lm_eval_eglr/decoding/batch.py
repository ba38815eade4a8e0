"""The rows of one decode pass, and how they run where shapes may change from pass to pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lm_eval_eglr.decoding.items import Items
from lm_eval_eglr.decoding.layer_stack import LayerStack
from lm_eval_eglr.decoding.row_cache import RowCache

ENOUGH_ON_CPU, ENOUGH_ON_GPU = 0.85, 0.75  # share of the live rows that can start


def items_run_alone(starting: int, live: int, device: torch.device) -> bool:
    """Whether rows that could start wait for others, which are being recursed.

    Items that run alone need their top layers only. On a CPU, where time goes by rows and layers, that costs
    next to nothing and lets more rows start together; on a GPU, where it goes by layers, it is worth it for
    fewer of them.
    """
    return starting < (ENOUGH_ON_CPU if device.type == "cpu" else ENOUGH_ON_GPU) * live


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that run their newest token through all layers, then the items that join them.

    Attributes:
        tokens: Newest token of each row, then of each item's row.
        positions: Their positions.
        slots: Their rows of the cache. Without items all live rows run, in their order.
        starting: Number of rows.
        live: Rows that the cache holds.
        spans: Spans that the live rows may be recursed with.
        overwrites: Whether items store their keys and values.
    """

    tokens: Sequence[int]
    positions: Sequence[int]
    slots: Sequence[int]
    starting: int
    live: int
    spans: Collection[int]
    overwrites: bool

    @property
    def width(self) -> int:
        """Columns of the cache up to the longest row's newest token."""
        return max(self.positions) + 1


RunBatch = Callable[[Batch, RowCache, Items[Any]], Tensor]
"""Runs a pass: what is in it, the cache, and the items; log-probabilities, ``[rows + items, vocab]``."""


def run_varying(stack: LayerStack, batch: Batch, cache: RowCache, items: Items[Any]) -> Tensor:
    """Runs a pass of just the rows and columns that there are.

    Returns:
        Log-probabilities, ``[rows + items, vocab]``.
    """
    cache.reserve(batch.live, batch.width)
    tokens, positions = torch.tensor(batch.tokens)[:, None], torch.tensor(batch.positions)
    if items:
        stored = len(tokens) if batch.overwrites else batch.starting
        cache.begin_items(torch.tensor(batch.slots), positions, stored=stored, live=batch.live)
        normed = stack.forward(tokens, positions[:, None], cache, items)
    else:
        cache.begin_step(positions)
        normed = stack.forward(tokens, positions[:, None], cache)
    return stack.unembed(normed[:, 0]).log_softmax(-1)
