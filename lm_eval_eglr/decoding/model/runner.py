"""How a pass is run: a batch in, its distributions out.

A runner is any function of that shape. The engine makes one per run; tests inject their own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lm_eval_eglr.decoding.cells import CellTable
from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.model.layer_stack import LayerStack
from lm_eval_eglr.decoding.model.passes import DynamicPass, PassOutput, RecursionInputs
from lm_eval_eglr.decoding.recursion import ActiveRecursions
from lm_eval_eglr.decoding.sampler import Draws

# Below this share of rows that can start, those that are being recursed run alone.
STARTING_SHARE_ON_CPU, STARTING_SHARE_ON_GPU = 0.85, 0.75


def recursions_run_alone(starting: int, live: int, device: torch.device) -> bool:
    """Whether rows that could start wait for others, which are being recursed.

    Recursions that run alone need their top layers only. On a CPU, where time goes by rows and layers, that
    costs next to nothing and lets more rows start together; on a GPU, where it goes by layers, it is worth it
    for fewer of them.
    """
    share = STARTING_SHARE_ON_CPU if device.type == "cpu" else STARTING_SHARE_ON_GPU
    return starting < share * live


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that run their newest token through all layers, then the recursions that join them.

    Attributes:
        tokens: Newest token of each row, then of each recursion's row, ``[rows + recursions]``.
        positions: Their positions.
        slots: Their rows of the cache. Without recursions all live rows run, in their order.
        starting: Number of rows.
        live: Rows that the cache holds.
        spans: Spans that the live rows may be recursed with.
        recursions: Those that are in flight; they are the last rows.
        draws: The draws from the pass's distributions.
        table: The cells that draw.
    """

    tokens: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    starting: int
    live: int
    spans: Collection[int]
    recursions: ActiveRecursions
    draws: Draws
    table: CellTable

    @property
    def width(self) -> int:
        """Columns of the cache up to the longest row's newest token."""
        return int(self.positions.max()) + 1

    @property
    def first_cells(self) -> np.ndarray:
        """The first cell of each row, ``[rows]``; of a batch without recursions, whose rows all draw."""
        return self.draws.cells[np.searchsorted(self.draws.entries, np.arange(self.starting))]


RunBatch = Callable[[Batch], PassOutput]
MakeRunner = Callable[[Any, KVCache], RunBatch]
"""Makes the runner of a run from the model and the cache that holds its rows."""


class EagerRunner:
    """Runs passes of just the rows and columns that there are, one kernel at a time."""

    def __init__(self, stack: LayerStack, cache: KVCache) -> None:
        self._stack = stack
        self._cache = cache

    def __call__(self, batch: Batch) -> PassOutput:
        """Runs a pass."""
        cache, active = self._cache, batch.recursions
        if batch.live > cache.rows or batch.width > cache.length:
            cache.reserve(batch.live, batch.width)
        tokens, positions = torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions)
        slots = inputs = None
        if len(active):
            slots = torch.from_numpy(batch.slots)
            inputs = RecursionInputs(active.spans.tolist(), active.inputs(), active.outputs)
        running = DynamicPass(cache, slots, positions, batch.live, self._stack.depth, inputs)
        return self._stack.run(running, tokens, positions)
