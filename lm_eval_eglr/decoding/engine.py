"""The decode loop: schedule, run, recurse, draw, commit.

A pool is a tree of rows, each run once, that fork where their cells draw apart. A pass runs the newest
token of some rows through all layers, and one iteration of every recursion through its top layers beside
them, so that the weights are read once for both. A row draws once the distributions of all its cells are
there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from eglr_selectors.pool import RolloutPool
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_eval_eglr.decoding.cells import CellTable
from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.depth import DepthAxis
from lm_eval_eglr.decoding.model.cuda_graphs import can_capture
from lm_eval_eglr.decoding.model.kv_cache import (
    KVCache,
    OutOfMemory,
    is_out_of_memory,
    release_memory,
)
from lm_eval_eglr.decoding.model.packed_weights import CpuLinear
from lm_eval_eglr.decoding.model.runner import Batch, MakeRunner, RunBatch, Step, recursions_run_alone
from lm_eval_eglr.decoding.numerics import on_device
from lm_eval_eglr.decoding.prefill import Prompts, ReadRows, prefill
from lm_eval_eglr.decoding.recursion import ActiveRecursions
from lm_eval_eglr.decoding.request import CostModel, Job, Request, StepResult
from lm_eval_eglr.decoding.sampler import Sampler
from lm_eval_eglr.decoding.scheduler import Poll, Scheduler
from lm_eval_eglr.decoding.tree import Tree
from lm_eval_eglr.recurrent.config import RecurrentConfig
from lm_eval_eglr.shards import Shards

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called after each step with the tokens and the rollouts that it finished."""


class Stack(Protocol):
    """A model that can be decoded.

    Attributes:
        model: The model.
        depth: Layers that a token runs through in the model as it is.
        base_layers: Those that every token runs through once, whatever its level of depth.
        shards: The processes that hold the model together.
        bytes_per_token: Keys and values of one position, bytes by the device that they lie on.
        device: Where token ids go.
        compiled_layers: Layers that run compiled, at least in some passes.
    """

    model: PreTrainedModel
    depth: int
    base_layers: int
    shards: Shards

    @property
    def bytes_per_token(self) -> dict[torch.device, int]: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def compiled_layers(self) -> Sequence[nn.Module]: ...

    def layer_parameters(self) -> float: ...

    def head_parameters(self) -> int: ...

    def installed(self) -> AbstractContextManager[None]: ...

    def rows_that_fit(self, length: int, deepest: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Decodable:
    """A model of one kind, and what runs it.

    Attributes:
        stack: The model.
        axis: What levels of depth are.
        config: Options of the recursion, or of the recurrent block.
        make_runner: Makes what runs the passes of a run.
        read: Reads prompts.
        recursions: Makes what decides after a pass, given how far a log-probability moves by rounding.
        token_logprobs: ln p of tokens after a prompt at a level of depth, by teacher forcing.
        rounding: How far a log-probability moves by rounding, nats.
        positions: Length of its context; ``None`` if it does not say.
        shares_prompts: Whether a prompt's keys and values can be stored once for all rows of its pool.
    """

    stack: Stack
    axis: DepthAxis
    config: RecursionConfig | RecurrentConfig
    make_runner: MakeRunner
    read: ReadRows
    recursions: Callable[[float], ActiveRecursions]
    token_logprobs: Callable[[Sequence[int], Sequence[int], int], list[float]]
    rounding: float
    positions: int | None
    shares_prompts: bool = False


class Engine:
    """Decodes requests into pools with continuous batching.

    Attributes:
        stack: The model.
        recursion: The recursion's options.
        max_rows: Most rows alive at once. A request needs as many as it has cells.
        end_tokens: Tokens that end a rollout.
        make_runner: Makes what runs the passes of a run.
        ahead: Whether the device gets a step before the host has committed the one before: so where the model
            lies on one CUDA device. It changes no rollout.
        rounding: How far a log-probability moves by rounding, nats; measured at start in half precision.
        prompts: Prompts whose keys and values are held.
        tree: The live rows.
    """

    def __init__(
        self,
        decodable: Decodable,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_rows: int,
        end_tokens: frozenset[int],
        share: bool = True,
        trace: bool = False,
    ) -> None:
        """Prepares decoding.

        Args:
            decodable: The model.
            tokenizer: Its tokenizer.
            max_rows: Most rows alive at once.
            end_tokens: Tokens that end a rollout.
            share: Whether cells with equal prefixes share a row. The rollouts are the same either way.
            trace: Whether telemetry keeps its per-token values.
        """
        self.stack = stack = decodable.stack
        self.recursion = decodable.config
        self.axis = decodable.axis
        self.token_logprobs = decodable.token_logprobs
        self.max_rows = max_rows
        self.end_tokens = end_tokens
        self.trace = trace
        self.make_runner = decodable.make_runner
        self._read = decodable.read
        self._make_recursions = decodable.recursions
        self.costs = CostModel(stack.depth, stack.layer_parameters(), stack.head_parameters())
        self._head = self.costs.head_parameters / self.costs.layer_parameters  # its cost in layers
        self.prompts = Prompts(shared=share and decodable.shares_prompts)
        shards = stack.shards
        self._agree = shards.agree if shards.size > 1 else None
        # Levels of a recurrent block, and processes that must agree on what is drawn, wait for the host.
        self.ahead = can_capture(stack.model) and decodable.axis.shares_rows and self._agree is None
        self._tokenizer = tokenizer
        self._share = share
        self.rounding = decodable.rounding
        self._run = 0
        self._reset(lambda: None)

    def _reset(self, poll: Poll) -> None:
        """Resets all run state, also after an abandoned run."""
        # Packs weights as they are now.
        self._linear = CpuLinear(self.stack.model, self.stack.compiled_layers)
        self._table = CellTable(self.axis)
        self._scheduler = Scheduler(poll, self.max_rows, self._share)
        self.tree = Tree(
            self._table,
            self._tokenizer,
            depth=self.stack.base_layers,
            end_tokens=self.end_tokens,
            share=self._share,
            trace=self.trace,
        )
        self._sampler = Sampler(self._table, self.rounding, self._agree)
        self._recursions = self._make_recursions(self.rounding)
        self._seen = -1  # events of the tree when rows were last let in
        self._spans: set[int] = set()  # of the requests so far, but for 0
        self._end_tokens = on_device(np.array(sorted(self.end_tokens), np.int64), self.stack.device)
        self._reset_cache(self.max_rows)

    def _reset_cache(self, rows: int) -> None:
        """Empties the cache, which then has at most so many rows, and with it all that points into it."""
        if self.stack.device.type == "cuda":
            torch.cuda.synchronize(self.stack.device)  # a step that was dropped may still be running
        self._launched: Step | None = None
        self._recursions.clear()
        self.prompts.clear()
        self._cache = KVCache(rows, self.stack.bytes_per_token, prompts=KVCache(rows))
        self._run_batch: RunBatch = self.make_runner(self.stack, self._cache)

    def run(
        self,
        requests: Iterable[Request] | Poll,
        progress: Progress | None = None,
        to_come: Iterable[Request] = (),
    ) -> Iterator[tuple[int, RolloutPool]]:
        """Decodes all requests.

        Args:
            requests: Taken one by one as room is made: an iterable, which may be a generator, or a function
                that returns the next one, or ``None`` as long as there is none.
            progress: Called after each step with the tokens and the rollouts that it finished.
            to_come: What is known of them: room for the longest is made at once.

        Yields:
            Each pool with the number of its request, in the order in which pools finish.

        Raises:
            ValueError: If a request has more cells than there may be rows.
        """
        if callable(requests):
            poll: Poll = requests
        else:
            source = iter(requests)
            poll = lambda: next(source, None)  # noqa: E731
        self._reset(poll)
        self._cache.expected = max(map(self.prompts.columns_of, to_come), default=0)
        self._run = run = self._run + 1
        try:
            while jobs := self._decode(progress):
                for job in jobs:
                    yield job.number, job.pool(self.costs)
        finally:
            if self._run == run:  # else this run was abandoned, and another one has begun
                self._reset(lambda: None)  # gives back the memory of the cache, packed weights and graphs

    def _decode(self, progress: Progress | None) -> list[Job]:
        """Decodes until requests are done, and returns these; none if nothing is left."""
        while not self.tree.finished:
            if not self.tree.count and self._scheduler.is_empty:
                return []
            shortage = ""
            with self._installed():
                try:
                    while not self.tree.finished:
                        done = self.step()
                        if done is None:
                            return []
                        if progress is not None:
                            progress(done.tokens, done.rollouts)
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    shortage = " ".join(str(error).split()) or type(error).__name__
            if shortage:
                # Outside of the handler, which keeps the failed step's tensors.
                self._retry_with_half_the_rows(shortage)
        jobs = list(self.tree.finished)
        self.tree.finished.clear()
        for job in jobs:
            self._scheduler.record(job)
        return jobs

    @contextmanager
    def _installed(self) -> Iterator[None]:
        """The model runs our passes during the block. Whoever takes pools finds it as it was."""
        # Not in inference mode: what a model keeps of a forward could not be trained with afterwards.
        with torch.no_grad(), self.stack.installed(), self._linear():
            yield

    def step(self) -> StepResult | None:
        """Runs a pass and draws a token for every cell whose distribution it completed; ``None`` if idle.

        Where the engine runs ahead, the next step is launched before this one is committed.
        """
        step, self._launched = self._launched or self._launch(None), None
        if step is None:
            return None
        if self.ahead:
            self._launched = self._launch(step)
        return self._commit(step)

    def _launch(self, before: Step | None) -> Step | None:
        """Gives the device a step, perhaps behind one that is not committed; ``None`` if there is none."""
        batch = self._schedule(before)
        if batch is None:
            return None
        output = self._run_batch(batch)
        verdict = self._recursions.step(output, batch.starting)
        drawn = self._sampler.draw(batch.draws, batch.lengths, output, verdict)
        return Step(batch, output, verdict, drawn, batch.slots)

    def _schedule(self, before: Step | None) -> Batch | None:
        """Lets rows in, and chooses those that run: all that can, unless too many others are recursed."""
        tree, recursions = self.tree, self._recursions
        # Where nothing has begun or ended, nothing can be let in.
        admitted = self._scheduler.admit(tree) if tree.events != self._seen or not tree.count else []
        self._seen = tree.events
        if admitted:
            self._spans.update(cell.span for row in admitted for cell in row.job.request.cells if cell.span)
            prefill(self._read, self._cache, tree, admitted, self.prompts)
        if not tree.count or (before is not None and (len(recursions) or not tree.is_plain)):
            return None
        starting = np.flatnonzero(tree.active[: tree.count] == 0)
        if len(recursions):
            deepest = self.axis.layers(int(recursions.spans[0]))
            full, alone = self.stack.base_layers + self._head, deepest + self._head
            if recursions_run_alone(len(starting), tree.count, full, alone):
                starting = starting[:0]
        slots = np.concatenate([starting, recursions.slots])
        draws = tree.draws(starting, recursions)
        batch = Batch(
            tokens=tree.token[slots],
            positions=tree.position[slots],
            slots=slots,
            starting=len(starting),
            live=tree.count,
            spans=self._spans,
            recursions=recursions,
            draws=draws,
            lengths=self._table.length[draws.cells],
            prompts=tree.prompt[slots].T,
            table=self._table,
        )
        return batch if before is None else before.next(batch, self._table, self._end_tokens)

    def _commit(self, step: Step) -> StepResult:
        tree, launched = self.tree, self._launched
        batch, flags = step.fetch()
        tree.ledger.count_pass(tree.job[: tree.count])
        try:
            done = tree.commit(
                batch,
                step.output,
                step.verdict,
                flags,
                self._cache,
                max_recursions=self.recursion.max_recursions,
                limit=self._scheduler.limit,
                written=step.drawn.written,
                ahead=launched is not None,
            )
        finally:
            if tree.preempted:
                self._scheduler.preempt(tree.preempted)
                tree.preempted = []
        if launched is not None and not launched.follow(self._table, step.tokens, tree.moved):
            self._launched = None
        return done

    def _retry_with_half_the_rows(self, shortage: str) -> None:
        """Makes room after memory ran out: all rows wait, to go on half as many at a time.

        Raises :class:`OutOfMemory` if a single row was too many.
        """
        tree = self.tree
        held = min(self._scheduler.limit, tree.count)
        if self.stack.shards.size > 1:
            raise OutOfMemory(
                f"out of memory with {held} rows ({shortage}); processes that hold a model together cannot "
                "go on with fewer: lower max_rows or batch_size"
            )
        if held <= 1:
            length = int(tree.position[: tree.count].max(initial=0)) + 1
            raise OutOfMemory(
                f"out of memory with one row of {length} tokens ({shortage}); expected room for one: "
                "lower max_gen_toks or take a smaller dtype"
            )
        self._scheduler.limit = held // 2
        logger.warning("out of memory with %d rows (%s); going on with at most %d", held, shortage, held // 2)
        self._scheduler.preempt(tree.evict())
        self._reset_cache(held // 2)
        release_memory()
