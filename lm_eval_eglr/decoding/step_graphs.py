"""Decode passes of few fixed shapes, captured as CUDA graphs and replayed.

A pass of a language model of a few billion parameters is well over a thousand kernels of a few microseconds,
and launching them one by one from Python takes several times as long as running them. A captured graph is
launched at once, but fixes every shape and address: rows and columns are padded to the next of few sizes,
rows that are recursed join by replacement (:class:`~lm_eval_eglr.decoding.passes.FixedPass`), and what a pass
is given is written into tensors that stay.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lm_eval_eglr.decoding.batch import Batch, run_varying
from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.item_past import places_among_equals
from lm_eval_eglr.decoding.items import Items
from lm_eval_eglr.decoding.layer_stack import LayerStack
from lm_eval_eglr.decoding.passes import FixedPass, Residuals
from lm_eval_eglr.decoding.recursion import recursion_output
from lm_eval_eglr.decoding.row_cache import FixedStep, RowCache
from lm_eval_eglr.decoding.shortage import is_shortage
from lm_eval_eglr.decoding.step_shapes import Shape

logger = logging.getLogger(__name__)

# Passes that a graph of a larger shape runs for a smaller one before that gets its own: what is padded costs
# little as long as reading the weights takes most of the time, and a capture costs as much as ten passes.
PATIENCE = 64
EMBEDDED = -1  # first layer of a row that begins with its token's embedding


class StepGraphs:
    """Runs decode passes of one run, by graphs that are captured as their shapes are met.

    Args:
        stack: The model, on one CUDA device.
        recursion: The recursion's options.

    Attributes:
        usable: False once something in the model could not be captured; then nothing else is tried.
    """

    def __init__(self, stack: LayerStack, recursion: RecursionConfig) -> None:
        self._stack = stack
        self._recursion = recursion
        self.usable = True
        self._rehearsed: set[tuple[int, int]] = set()
        self.clear()

    def clear(self) -> None:
        """Forgets all graphs, and with them their memory."""
        self._steps: dict[Shape, _Step] = {}
        self._met: Counter[Shape] = Counter()
        self._growth = -1
        # Memory that the graphs share, since they never run at the same time, and where all of them write.
        self._pool: Any = None
        self._output = _Output()

    def run(self, batch: Batch, cache: RowCache, items: Items[Any]) -> Tensor:
        """Runs a pass; log-probabilities, ``[rows + items, vocab]``."""
        if not self.usable:
            return run_varying(self._stack, batch, cache, items)
        shape = Shape.of(batch, bool(items), self._stack.depth, cache.max_rows)
        cache.reserve(shape.live, shape.width)
        if self._growth != cache.growth:
            self.clear()
            self._growth = cache.growth
        step = self._step(shape, cache)
        step.fill(batch, items)
        if step.replay is not None:
            step.replay()
        else:
            step.compute()
        self._stack.residuals = step.residuals
        count = len(batch.tokens)
        if items:
            items.states = step.states[batch.starting : count].clone()
        return step.logprobs[:count].clone()  # the next replay writes into the same memory

    def _step(self, shape: Shape, cache: RowCache) -> _Step:
        """The graph of a shape or of a larger one, or one that is not captured yet."""
        known = self._steps.get(shape)
        if known is not None:
            return known
        self._met[shape] += 1
        larger = [step for step in self._steps.values() if step.shape.covers(shape)]
        if larger and self._met[shape] <= PATIENCE:
            return min(larger, key=lambda step: step.shape.size())
        step = self._new_step(shape, cache)
        kind = (shape.most, shape.bypassed)
        if kind not in self._rehearsed:
            self._rehearsed.add(kind)  # libraries set themselves up at a first call, which is not captured
        else:
            try:
                self._pool = self._pool or graph_pool()
                step.replay = capture(step.compute, self._pool)
                self._steps[shape] = step
            except Exception as error:
                if is_shortage(error):
                    raise
                self.usable = False
                logger.warning(
                    "%s: decode steps cannot be captured as CUDA graphs and run one kernel at a time (%s)",
                    type(self._stack.model).__name__,
                    " ".join(str(error).split())[:200],
                )
                step = self._new_step(shape, cache)
        return step

    def _new_step(self, shape: Shape, cache: RowCache) -> _Step:
        return _Step(self._stack, self._recursion, shape, cache, self._output)


class _Output:
    """Memory of the log-probabilities, which all graphs write to one after the other."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def like(self, scores: Tensor) -> Tensor:
        """Memory of the size of these, ``[rows, vocab]``."""
        if len(self._memory) < len(scores):
            self._memory = torch.empty_like(scores)
        return self._memory[: len(scores)]


class _Step:
    """A pass of one shape: the tensors that it reads and writes, and what it computes."""

    def __init__(
        self,
        stack: LayerStack,
        recursion: RecursionConfig,
        shape: Shape,
        cache: RowCache,
        output: _Output,
    ) -> None:
        self.shape = shape
        self.replay: Callable[[], None] | None = None
        self._stack = stack
        self._recursion = recursion
        self._cache = cache
        self._output = output
        device = stack.device
        self._numbers = torch.zeros(6, shape.rows, dtype=torch.long, device=device)
        size = (shape.rows, stack.model.config.get_text_config().hidden_size)
        self._inputs = torch.zeros(size, dtype=stack.model.dtype, device=device)
        self._before = torch.zeros_like(self._inputs)
        self.logprobs = self.states = torch.empty(0)
        self.residuals = Residuals(stack.depth)

    def fill(self, batch: Batch, items: Items[Any]) -> None:
        """Writes what the next computation is of; the rows that are left over run token 0 for nobody."""
        count, spare = len(batch.tokens), self._cache.spare
        padding = self.shape.rows - count
        first = [EMBEDDED] * batch.starting + [self._stack.depth - span for span in items.spans]
        stores = list(batch.slots)
        if not batch.overwrites:
            stores[batch.starting :] = [spare] * (count - batch.starting)
        columns = (
            (batch.tokens, 0),
            (batch.positions, 0),
            (batch.slots, 0),
            (places_among_equals(torch.tensor(batch.slots)).tolist(), self.shape.most),
            (stores, spare),
            (first, EMBEDDED),
        )
        self._numbers.copy_(torch.tensor([[*values, *[rest] * padding] for values, rest in columns]))
        if items:
            self._inputs[batch.starting : count] = items.inputs()
            self._before[batch.starting : count] = items.states

    def compute(self) -> None:
        """Runs the pass on what was filled in; everything that it uses is on the device."""
        shape, depth = self.shape, self._stack.depth
        tokens, positions, slots, places, stores, first = self._numbers
        recursed = bool(shape.most)
        self._cache.begin_fixed(
            FixedStep(
                shape.live,
                shape.width,
                positions,
                stores,
                slots,
                places if recursed else None,
                shape.most + 1,
            )
        )

        def outputs(hidden: Tensor) -> Tensor:
            update, strength = self._recursion.update, self._recursion.strength
            applied = recursion_output(update, strength, self._before, hidden)
            self.states = hidden if applied is hidden else torch.where((first >= 0)[:, None], applied, hidden)
            return self.states

        running = FixedPass(self._cache, depth, shape.spans, first, self._inputs, outputs, shape.bypassed)
        normed = self._stack.run(running, tokens[:, None], positions[:, None], self._cache)
        scores = self._stack.unembed(normed[:, 0])
        self.logprobs = torch.log_softmax(scores, -1, out=self._output.like(scores))
        self.residuals = self._stack.residuals


def can_capture(model: nn.Module) -> bool:
    """Whether a model lies on one CUDA device, all of it."""
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    return len(devices) == 1 and devices.pop().type == "cuda"


def graph_pool() -> Any:
    """Handle of memory that graphs may share."""
    return torch.cuda.graph_pool_handle()


def capture(compute: Callable[[], None], pool: Any) -> Callable[[], None]:
    """Captures what a function launches; the result launches it again, into the same memory."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):  # other threads may go on
        compute()
    replay: Callable[[], None] = graph.replay
    return replay
