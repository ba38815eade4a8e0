"""Decode passes of few fixed shapes, captured as CUDA graphs and replayed.

A pass of a language model of a few billion parameters is well over a thousand kernels of a few microseconds,
and launching them one by one from Python takes several times as long as running them. A captured graph is
launched at once, but fixes every shape and address: rows and columns are padded to the next of few sizes,
rows that are recursed join by replacement (:class:`~lm_eval_eglr.decoding.model.passes.StaticPass`), and
what a pass is given is written into tensors that stay.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lm_eval_eglr.decoding.model.attention import Past
from lm_eval_eglr.decoding.model.kv_cache import COLUMNS, KVCache, is_out_of_memory, padded
from lm_eval_eglr.decoding.model.layer_stack import LayerStack
from lm_eval_eglr.decoding.model.passes import PassOutput, Residuals, StaticAddresses, StaticPass
from lm_eval_eglr.decoding.model.runner import Batch, EagerRunner, MakeRunner, RunBatch
from lm_eval_eglr.decoding.model.shared_past import SharedLayout, SharedPast, rank_within_group
from lm_eval_eglr.decoding.numerics import on_device, statistics

logger = logging.getLogger(__name__)

ROWS = (8, 16, 32, 48, 64, 96, 128, 192, 256)  # that passes are padded to
# Passes that a graph of a larger shape runs for a smaller one before that gets its own: what is padded costs
# little as long as reading the weights takes most of the time, and a capture costs as much as ten passes.
CAPTURE_AFTER = 64
EMBEDDED = -1  # first layer of a row that begins with its token's embedding

Capture = Callable[[Callable[[], None], Any], Callable[[], None]]
"""Captures what a function launches; what it returns launches it again, into the same memory."""


class Shape(NamedTuple):
    """What a graph is captured for; the first three are upper bounds.

    Attributes:
        live: Rows of the cache that are read.
        rows: Rows and recursions that run.
        width: Columns that are read.
        most: Queries that may attend to one row; 0 where all live rows run and nothing else.
        bypassed: Layers that are left out, where recursions run alone.
        spans: Spans at which recursions may join.
    """

    live: int
    rows: int
    width: int
    most: int
    bypassed: int
    spans: tuple[int, ...]

    @classmethod
    def of(cls, batch: Batch, depth: int, max_rows: int) -> Shape:
        """The smallest shape that a pass fits into.

        Args:
            batch: What is in the pass.
            depth: Number of the model's layers.
            max_rows: Most rows of the cache, which was sized to the memory that there is.
        """
        spans = tuple(sorted(batch.spans))
        recursed = bool(len(batch.recursions))
        # A row waits for its own spans and does not run beside them, so it has no more queries than these,
        # and mostly one, since its cells soon draw apart.
        most = 0
        if recursed:
            most = 1 if np.bincount(batch.slots).max() == 1 else len(spans)
        live = min(padded(batch.live, ROWS), max(batch.live, max_rows))
        rows = padded(len(batch.tokens), ROWS)
        if not recursed:
            rows = live
        elif batch.starting:
            rows = max(live, rows)  # nearly always so, and fewer shapes
        return cls(
            live,
            rows,
            padded(batch.width, COLUMNS),
            most,
            0 if batch.starting else depth - spans[-1],
            spans,
        )

    def covers(self, other: Shape) -> bool:
        """Whether a pass of the other shape can run in this one."""
        fits = self.live >= other.live and self.rows >= other.rows and self.width >= other.width
        able = self.most >= other.most
        return fits and able and self.bypassed == other.bypassed and self.spans == other.spans

    def size(self) -> tuple[int, int]:
        """What costs most comes first."""
        return self.live * self.width, self.rows


class GraphRunner:
    """Runs passes by graphs that are captured as their shapes are met.

    Attributes:
        usable: False once something in the model could not be captured; then nothing else is tried.
    """

    def __init__(self, stack: LayerStack, cache: KVCache, capture: Capture | None = None) -> None:
        """Runs passes of a model that lies on one CUDA device.

        Args:
            stack: The model.
            cache: Holds the rows.
            capture: Captures a pass; torch's by default.
        """
        self.usable = True
        self._stack = stack
        self._cache = cache
        self._capture = capture or capture_graph
        self._eager = EagerRunner(stack, cache)
        self._rehearsed: set[tuple[object, ...]] = set()
        self._passes: dict[Shape, _CapturedPass] = {}
        self._clear()

    def _clear(self) -> None:
        """Forgets all graphs, and with them their memory, once none of them runs any more."""
        if self._passes and self._stack.device.type == "cuda":
            torch.cuda.synchronize(self._stack.device)
        self._passes.clear()
        self._met: Counter[Shape] = Counter()
        self._growth = -1
        # Memory that the graphs share, since they never run at the same time, and where all of them write.
        self._pool: Any = None
        self._output = _Output()

    def __call__(self, batch: Batch) -> PassOutput:
        """Runs a pass. What it returns is valid until the next one, but for the states."""
        if not self.usable or batch.shares_prompts:
            return self._eager(batch)
        cache = self._cache
        shape = Shape.of(batch, self._stack.depth, cache.max_rows)
        cache.reserve(shape.live, shape.width)
        if self._growth != cache.growth:
            self._clear()
            self._growth = cache.growth
        known = self._pass(shape, batch)
        known.fill(batch)
        if known.replay is not None:
            known.replay()
        else:
            known.compute()
        count = len(batch.tokens)
        states = known.states[batch.starting : count].clone() if len(batch.recursions) else torch.empty(0)
        return PassOutput(
            known.logprobs[:count], states, known.residuals, statistics=known.statistics[:, :count]
        )

    def _pass(self, shape: Shape, batch: Batch) -> _CapturedPass:
        """The graph of a shape or of a larger one, or one that is not captured yet."""
        known = self._passes.get(shape)
        if known is not None:
            return known
        self._met[shape] += 1
        larger = [each for each in self._passes.values() if each.shape.covers(shape)]
        if larger and self._met[shape] <= CAPTURE_AFTER:
            return min(larger, key=lambda each: each.shape.size())
        fresh = self._new_pass(shape, batch)
        # Compiled layers may be compiled again for any shape, which cannot happen during a capture.
        kind = shape if self._stack.compiled is not None else (shape.most, shape.bypassed)
        if kind not in self._rehearsed:
            self._rehearsed.add(kind)  # libraries set themselves up at a first call, which is not captured
            return fresh
        try:
            self._pool = self._pool or graph_pool()
            fresh.replay = self._capture(fresh.compute, self._pool)
            self._passes[shape] = fresh
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self.usable = False
            logger.warning(
                "%s: decode steps cannot be captured as CUDA graphs and run one kernel at a time (%s)",
                type(self._stack.model).__name__,
                " ".join(str(error).split())[:200],
            )
            return self._new_pass(shape, batch)
        return fresh

    def _new_pass(self, shape: Shape, batch: Batch) -> _CapturedPass:
        return _CapturedPass(self._stack, batch, shape, self._cache, self._output)


class _Output:
    """Memory of the log-probabilities, which all graphs write to one after the other."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def like(self, scores: Tensor) -> Tensor:
        """Memory of the size of these, ``[rows, vocab]``."""
        if len(self._memory) < len(scores):
            self._memory = torch.empty_like(scores)
        return self._memory[: len(scores)]


class _CapturedPass:
    """A pass of one shape: the tensors that it reads and writes, and what it computes."""

    def __init__(
        self, stack: LayerStack, batch: Batch, shape: Shape, cache: KVCache, output: _Output
    ) -> None:
        self.shape = shape
        self.replay: Callable[[], None] | None = None
        self._stack = stack
        self._axis = batch.recursions.axis
        self._cache = cache
        self._output = output
        device = stack.device
        self._numbers = torch.zeros(6, shape.rows, dtype=torch.long, device=device)
        size = (shape.rows, stack.model.config.get_text_config().hidden_size)
        self._inputs = torch.zeros(size, dtype=stack.model.dtype, device=device)
        self._before = torch.zeros_like(self._inputs)
        self.logprobs = self.statistics = self.states = torch.empty(0)
        self.residuals = Residuals(stack.depth)

    def fill(self, batch: Batch) -> None:
        """Writes what the next computation is of; the rows that are left over run token 0 for nobody."""
        count, scratch, active = len(batch.tokens), self._cache.scratch_slot, batch.recursions
        numbers = np.zeros((6, self.shape.rows), np.int64)
        numbers[2, count:], numbers[4], numbers[5] = self.shape.live, scratch, EMBEDDED
        numbers[:3, :count] = batch.tokens, batch.positions, batch.slots
        numbers[4, : batch.starting] = batch.slots[: batch.starting]
        if len(active):
            numbers[3, :count] = rank_within_group(torch.from_numpy(batch.slots)).numpy()
            numbers[5, batch.starting : count] = self._stack.depth - active.spans
            self._inputs[batch.starting : count] = active.inputs()
            self._before[batch.starting : count] = active.states
        self._numbers.copy_(on_device(numbers, self._numbers.device))
        if batch.newest is not None and batch.discarded is not None:
            self._numbers[0, : batch.starting] = batch.newest
            self._numbers[4, : batch.starting].masked_fill_(batch.discarded, scratch)

    def compute(self) -> None:
        """Runs the pass on what was filled in; everything that it uses is on the device."""
        shape, depth = self.shape, self._stack.depth
        tokens, positions, slots, ranks, stores, first = self._numbers

        def outputs(hidden: Tensor) -> Tensor:
            applied = self._axis.output(self._before, hidden)
            return hidden if applied is hidden else torch.where((first >= 0)[:, None], applied, hidden)

        past = Past(shape.live, shape.width, positions)
        if shape.most:
            taken = slots.clamp_max(shape.live - 1)
            layout = SharedLayout(None, slots, ranks, shape.live, shape.most, taken)
            past = SharedPast(shape.live, shape.width, positions, layout)
        addresses = StaticAddresses(past, stores, first)
        running = StaticPass(
            self._cache, addresses, depth, shape.spans, self._inputs, outputs, shape.bypassed
        )
        normed = self._stack.forward(running, tokens[:, None], positions[:, None])
        scores = self._stack.unembed(normed[:, 0])
        self.logprobs = torch.log_softmax(scores, -1, out=self._output.like(scores))
        self.statistics = statistics(self.logprobs)
        self.states, self.residuals = running.states, running.residuals


def make_runner(cuda_graphs: bool = True) -> MakeRunner:
    """What makes the runner of a run: by graphs, where they are wanted and the model can be captured.

    What processes exchange is not.
    """

    def make(stack: LayerStack, cache: KVCache) -> RunBatch:
        if cuda_graphs and stack.shards.size == 1 and can_capture(stack.model):
            return GraphRunner(stack, cache)
        return EagerRunner(stack, cache)

    return make


def can_capture(model: nn.Module) -> bool:
    """Whether a model lies on one CUDA device, all of it."""
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    return len(devices) == 1 and devices.pop().type == "cuda"


def graph_pool() -> Any:
    """Handle of memory that graphs may share; on a CPU, where a test stands in for them, none is needed."""
    return torch.cuda.graph_pool_handle() if torch.cuda.is_available() else object()


def capture_graph(compute: Callable[[], None], pool: Any) -> Callable[[], None]:
    """Captures what a function launches; the result launches it again, into the same memory."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):  # other threads may go on
        compute()
    replay: Callable[[], None] = graph.replay
    return replay
