"""How a pass is run: a batch in, its distributions out; and the step that it is part of.

A runner is any function of that shape. The engine makes one per run; tests inject their own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm_eval_eglr.decoding.cells import CellTable
from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.model.layer_stack import LayerStack
from lm_eval_eglr.decoding.model.passes import DynamicPass, PassOutput, RecursionInputs
from lm_eval_eglr.decoding.numerics import on_device
from lm_eval_eglr.decoding.recursion import ActiveRecursions, Verdict
from lm_eval_eglr.decoding.sampler import Drawn, Draws


def recursions_run_alone(starting: int, live: int, full: float, alone: float) -> bool:
    """Whether rows that could start wait for others, which are being recursed.

    Recursions that run alone need their top layers only, and more rows start together afterwards, so that the
    weights of the lower layers are read less often; but it is a pass more. So rows wait where a full pass now
    starts fewer for its cost than one after it would, if it started all of them, for the cost of both.

    Args:
        starting: Rows that could start.
        live: All rows.
        full: Cost of a pass through all layers and the head, in layers.
        alone: Cost of one of the recursions alone.
    """
    return starting * (full + alone) < live * full


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
        prompts: Of the rows, then of the recursions: where its prompt is in the cache of prompts, and how
            many of its positions are stored with it, ``[2, rows + recursions]``.
        lengths: Tokens that the cell of each draw has before it, ``[draws]``.
        leaders: Which draw of the step before each row's token is, -1 where the host knows the token,
            ``[rows]``; ``None`` where it knows them all, as also of the next two.
        newest: The rows' tokens, ``[rows]`` on the device.
        discarded: Rows that have ended, as far as the device knows, whose keys and values are not kept,
            ``[rows]`` on the device.
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
    lengths: np.ndarray
    prompts: np.ndarray
    leaders: np.ndarray | None = None
    newest: Tensor | None = None
    discarded: Tensor | None = None

    @property
    def width(self) -> int:
        """Columns of the cache up to the longest row's newest token."""
        return int(self.positions.max()) + 1

    @property
    def shares_prompts(self) -> bool:
        """Whether rows attend to prompts that are stored once for several."""
        return bool(self.prompts[1].any())

    @property
    def columns(self) -> np.ndarray:
        """Where their newest tokens' keys and values are in their rows, ``[rows + recursions]``."""
        return self.positions - self.prompts[1]

    @property
    def first_cells(self) -> np.ndarray:
        """The first cell of each row, ``[rows]``; of a batch without recursions, whose rows all draw."""
        return self.draws.cells[np.searchsorted(self.draws.entries, np.arange(self.starting))]

    def stores(self, scratch: int) -> Tensor:
        """Where the keys and values of rows go, ``scratch`` for those that are discarded, ``[rows]``."""
        assert self.discarded is not None
        slots = on_device(self.slots[: self.starting], self.discarded.device)
        return slots.masked_fill(self.discarded, scratch)


@dataclass(slots=True)
class Step:
    """A step that the device has been given, and that the host has not committed.

    On a GPU it is launched before the one ahead of it has been committed, so that the device never waits for
    the host. That commit may end rollouts, let cells part from their row, and move rows: :meth:`follow`
    leaves of a step what is still true, and what is dropped was computed for nobody.

    Attributes:
        batch: What runs.
        output: What the pass returns.
        verdict: What it decides.
        drawn: What is drawn.
        slots: The slots that its rows have by now, ``[rows]``.
        kept: Those of its draws that count; ``None`` if all do.
        tokens: All drawn tokens, once they have been fetched.
    """

    batch: Batch
    output: PassOutput
    verdict: Verdict
    drawn: Drawn
    slots: np.ndarray
    kept: np.ndarray | None = None
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def fetch(self) -> tuple[Batch, np.ndarray]:
        """Waits for the device; returns what still counts of the batch, and its flags."""
        batch, flags = self.batch, self.drawn.fetch()
        draws, rows = batch.draws, len(batch.slots)
        self.tokens = flags[rows : rows + len(draws.cells)].astype(np.int64, copy=False)
        if self.kept is None:
            return (batch if self.slots is batch.slots else replace(batch, slots=self.slots)), flags
        entries = np.unique(draws.entries[self.kept])
        cells = draws.cells[self.kept]
        left = replace(
            batch,
            slots=self.slots[entries],
            starting=len(entries),
            draws=Draws(cells, np.searchsorted(entries, draws.entries[self.kept]), len(cells)),
        )
        return left, np.concatenate([flags[entries], self.tokens[self.kept]])

    def follow(self, table: CellTable, tokens: np.ndarray, moved: np.ndarray | None) -> bool:
        """Takes in the commit of the step before; returns whether anything of this one is left.

        A draw counts if its cell is still in its row and the row's token is the one that ran.

        Args:
            table: The cells.
            tokens: All tokens of the step before.
            moved: New slots by the old ones; ``None`` if no row has moved.
        """
        batch = self.batch
        cells, entries, leaders = batch.draws.cells, batch.draws.entries, batch.leaders
        assert leaders is not None
        if moved is not None:
            self.slots = moved[batch.slots]
        ran = tokens[leaders]  # of any draw where the host knew the token, which nothing can change
        counts = table.slot[cells] == self.slots[entries]
        counts &= (leaders < 0)[entries] | (table.drawn[cells] == ran[entries])
        self.kept = None if counts.all() else np.flatnonzero(counts)
        return bool(counts.any())

    def next(self, batch: Batch, table: CellTable, end_tokens: Tensor) -> Batch | None:
        """The batch that follows before this step is committed; ``None`` if all rows are known to end.

        Args:
            batch: All live rows as the host knows them.
            table: The cells.
            end_tokens: Tokens that end a rollout, on the device.
        """
        entries = self.batch.draws.entries
        kept = np.arange(len(entries)) if self.kept is None else self.kept
        rows = entries[kept]  # ascending; a row's newest token will be what its first cell draws
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        leaders = np.full(batch.live, -1)
        leaders[self.slots[rows[first]]] = kept[first]
        runs = leaders >= 0
        draws = batch.draws
        lengths = batch.lengths + runs[draws.entries]
        over = np.zeros(batch.live, bool)
        over[draws.entries] = lengths >= table.limit[draws.cells]
        if over.all():
            return None
        drawn = self.drawn.tokens
        leading, tokens, ends = on_device(np.array([leaders, batch.tokens, over]), drawn.device)
        newest = torch.where(leading < 0, tokens, drawn[leading.clamp_min(0)])
        return replace(
            batch,
            positions=batch.positions + (runs & ~over),
            lengths=lengths,
            leaders=leaders,
            newest=newest,
            discarded=(ends > 0) | (newest[:, None] == end_tokens).any(-1),
        )


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
            cache.reserve(batch.live, int(batch.columns.max()) + 1)
        tokens, positions = torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions)
        slots = inputs = None
        if len(active):
            slots = torch.from_numpy(batch.slots)
            inputs = RecursionInputs(active.spans.tolist(), active.inputs(), active.outputs)
        stores = None
        if batch.newest is not None and batch.discarded is not None:
            tokens, stores = batch.newest, batch.stores(cache.scratch_slot)
        prompts = torch.from_numpy(batch.prompts.copy()) if batch.shares_prompts else None
        running = DynamicPass(
            cache, slots, positions, batch.live, self._stack.depth, inputs, stores=stores, prompts=prompts
        )
        return self._stack.run(running, tokens, positions)
