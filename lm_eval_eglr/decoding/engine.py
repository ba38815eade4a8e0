"""The decode loop: a pool is a trie of rows, each run once, that fork where their cells draw apart.

A pass runs the newest token of some rows through all layers, and one iteration of every recursion through
its top layers beside them: rows are batched over depths, so that the weights are read once for both. A row
draws once the distributions of all its cells are there.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from eglr_selectors.pool import RolloutPool
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm_eval_eglr.decoding.attention import RowAttention
from lm_eval_eglr.decoding.batch import Batch, RunBatch, items_run_alone, run_varying
from lm_eval_eglr.decoding.branching import branch_out
from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.costs import CostModel
from lm_eval_eglr.decoding.cpu_linear import CpuLinear
from lm_eval_eglr.decoding.demand import Demand
from lm_eval_eglr.decoding.distributions import Distributions
from lm_eval_eglr.decoding.drawing import draw_tokens
from lm_eval_eglr.decoding.items import Item, Items
from lm_eval_eglr.decoding.layer_stack import LayerStack
from lm_eval_eglr.decoding.prefill import prefill
from lm_eval_eglr.decoding.prefixes import Prefixes
from lm_eval_eglr.decoding.recursion import entropy
from lm_eval_eglr.decoding.row_cache import RowCache
from lm_eval_eglr.decoding.rows import Branch, Done, Job, Pending, Place, Request, Row
from lm_eval_eglr.decoding.shortage import OutOfMemory, is_shortage, release_memory
from lm_eval_eglr.decoding.slots import place_forks
from lm_eval_eglr.decoding.step_graphs import StepGraphs, can_capture
from lm_eval_eglr.decoding.stopping import decode_text
from lm_eval_eglr.decoding.ties import rounding_of
from lm_eval_eglr.decoding.token_records import record_tokens
from lm_eval_eglr.decoding.waiting import Waiting

logger = logging.getLogger(__name__)


class Engine:
    """Decodes requests into pools with continuous batching.

    Args:
        stack: The model.
        tokenizer: Its tokenizer.
        recursion: The recursion's options.
        max_rows: Most rows alive at once. A request needs as many as it has cells.
        eos_token_ids: Tokens that end a rollout.
        share: Whether cells with equal prefixes share a row. The rollouts are the same either way.
        trace: Whether telemetry keeps its per-token values.
        cuda_graphs: Whether passes on a CUDA device are captured.
    """

    def __init__(
        self,
        stack: LayerStack,
        tokenizer: PreTrainedTokenizerBase,
        recursion: RecursionConfig,
        *,
        max_rows: int,
        eos_token_ids: frozenset[int],
        share: bool = True,
        trace: bool = False,
        cuda_graphs: bool = True,
    ) -> None:
        self.stack = stack
        self.tokenizer = tokenizer
        self.recursion = recursion
        self.max_rows = max_rows
        self.eos_token_ids = eos_token_ids
        self.share = share
        self.trace = trace
        self.cuda_graphs = cuda_graphs
        self.prefixes = Prefixes()
        self._number = 0  # of the run
        self._begin()
        self._attention = RowAttention(stack.model)
        self._rounding = rounding_of(stack.model.dtype)
        self.costs = CostModel(stack.depth, stack.layer_parameters(), stack.head_parameters())

    def _begin(self) -> None:
        """Begins a run; one that was abandoned half-way leaves nothing behind."""
        self.rows: list[Row] = []
        self._stepped: list[Row] = []  # the rows of the running step, as it found them
        self._advancing = False  # whether the running step has begun to change what rows hold
        self._limit = self.max_rows  # fewer after memory ran out
        self._linear = CpuLinear(self.stack.model)  # packs weights as they are now
        self._spans: set[int] = set()  # of the requests so far, but for 0
        self._start_anew(self.max_rows)
        self._demand = Demand()
        self.prefixes.clear()

    def _start_anew(self, rows: int) -> None:
        """Empties the cache, which then has at most so many rows, and with it all that points into it."""
        self._cache = RowCache(rows)
        self._items: Items[Row] = Items(self.recursion)
        self._run_batch: RunBatch = partial(run_varying, self.stack)
        if self.cuda_graphs and can_capture(self.stack.model):
            self._run_batch = StepGraphs(self.stack, self.recursion).run

    def run(
        self, requests: Iterable[Request], progress: Callable[[int, int], None] | None = None
    ) -> Iterator[tuple[int, RolloutPool]]:
        """Decodes all requests.

        Args:
            requests: Taken one by one as room is made, so they may be a generator.
            progress: Called after each step with the tokens and the rollouts that it finished.

        Yields:
            Each pool with the number of its request, in the order in which pools finish.

        Raises:
            ValueError: If a request has more cells than there may be rows.
        """
        waiting = Waiting(requests, self.max_rows, self.share, self._can_wait)
        self._begin()
        self._number = number = self._number + 1
        try:
            yield from self._decode(waiting, progress)
        finally:
            if self._number == number:  # else this run was abandoned, and another one has begun
                self._begin()  # gives back the memory of the cache, of packed weights and of graphs

    def _decode(
        self, waiting: Waiting, progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[int, RolloutPool]]:
        while True:
            shortage = ""
            # Not around the yield: whoever takes the pools may use the model in between.
            with torch.no_grad(), self._attention(), self._linear(), self.stack.recording():
                try:
                    self._admit(waiting)
                    if not self.rows:
                        return
                    done = self.step()
                except Exception as error:
                    if not is_shortage(error):
                        raise
                    shortage = " ".join(str(error).split()) or type(error).__name__
            if shortage:
                # Outside of the handler, which keeps the failed step's tensors.
                self._halve(waiting, shortage)
                continue
            waiting.suspend(done.surplus)
            self._suspend(waiting)
            if progress is not None:
                progress(done.tokens, done.rollouts)
            for job in done.jobs:
                yield job.number, job.pool(self.costs)

    def step(self) -> Done:
        """Runs a pass and draws a token for every cell whose distribution it completed."""
        self._stepped = list(self.rows)
        self._run_pass()
        self._clock()
        ready = [row for row in self.rows if row.pending is not None and row.pending.complete]
        done = Done()
        if ready:
            distributions = Distributions.of(ready)
            drawn = draw_tokens(ready, distributions, self._rounding)
            self._advancing = True
            branch_out(ready, drawn, distributions)
            record_tokens(ready, drawn, distributions, self.recursion, self._rounding)
            self._advance(ready, drawn, done)
            self._advancing = False
        return done

    def _halve(self, waiting: Waiting, shortage: str) -> None:
        """Makes room after memory ran out: all rows wait, to go on half as many at a time.

        A step that had begun to append tokens cannot be taken back, and not every pool can go on in parts:
        those begin anew, and draw what they drew. Raises :class:`OutOfMemory` if a single row was too many.
        """
        rows = self._stepped if self._advancing else self.rows
        held = min(self._limit, len(rows))
        if held <= 1:
            length = max((row.position + 1 for row in rows), default=0)
            raise OutOfMemory(
                f"out of memory with one row of {length} tokens ({shortage}); expected room for one: "
                "lower max_gen_toks or take a smaller dtype"
            )
        self._limit = held // 2
        logger.warning(
            "out of memory with %d rows (%s); going on with at most %d", held, shortage, self._limit
        )
        anew = {
            row.job.number: row.job for row in rows if self._advancing or not self._can_wait(row.job.request)
        }
        waiting.withdraw(anew)
        rows = [row for row in rows if row.job.number not in anew]
        begun = [Job.begun(job.request, job.number) for job in anew.values()]
        rows += [row for job in begun for row in job.rows(self.share)]
        self.rows, self._stepped, self._advancing = [], [], False
        self._start_anew(self._limit)
        self.prefixes.clear()
        for row in rows:
            row.pending = None
        waiting.suspend(rows)
        release_memory()

    def _can_wait(self, request: Request) -> bool:
        """Whether a row can wait with its tokens while others of its request go on.

        Not under ``overwrite``, where its cache depends on the path; and not where rollouts branch, since
        which of them may is decided token by token over the whole pool.
        """
        return self.recursion.kv == "keep" and request.branching is None

    def _suspend(self, waiting: Waiting) -> None:
        """Lets the newest rows wait where forks have made more than may be."""
        surplus = self.rows[self._limit :]
        if not surplus or any(row.job.request.branching is not None for row in surplus):
            return  # no part of a pool that branches can wait, even if it is more than fits
        del self.rows[self._limit :]
        live = set(map(id, self.rows))
        self._items.keep(lambda row: id(row) in live)
        if self.recursion.kv == "overwrite":
            surplus = [row.from_the_start() for row in surplus]
        for row in surplus:
            row.pending = None
        waiting.suspend(surplus)

    def _admit(self, waiting: Waiting) -> None:
        """Moves waiting rows into free ones and runs all their tokens but the last."""
        admitted = waiting.rows(self.rows, self._limit, self._demand)
        if admitted:
            self._spans.update(span for row in admitted for span in row.spans() if span)
            prefill(self.stack, self._cache, self.rows, admitted, self.prefixes)

    def _run_pass(self) -> None:
        """Runs the newest token of each row that it has not been run of, and one iteration of each item."""
        slots = [number for number, row in enumerate(self.rows) if row.pending is None]
        starting = [self.rows[number] for number in slots]
        owners = self._items.owners
        if owners:
            if items_run_alone(len(starting), len(self.rows), self.stack.device):
                starting, slots = [], []
            number_of = {id(row): number for number, row in enumerate(self.rows)}
            slots += [number_of[id(row)] for row in owners]
        batch = Batch(
            tokens=[row.token for row in (*starting, *owners)],
            positions=[row.position for row in (*starting, *owners)],
            slots=slots,
            starting=len(starting),
            live=len(self.rows),
            spans=self._spans,
            overwrites=self.recursion.kv == "overwrite",
        )
        logprobs = self._run_batch(batch, self._cache, self._items)
        plain = logprobs[: len(starting)]
        if owners:
            self._items.observe(logprobs[len(starting) :])
        if starting:
            self._gate(starting, plain)

    def _gate(self, starting: list[Row], plain: Tensor) -> None:
        """Notes the plain distributions, ``[rows, vocab]``, and lets the spans of gated rows be recursed."""
        values: list[float] = entropy(plain).tolist()
        gated = [
            number
            for number, (row, value) in enumerate(zip(starting, values, strict=True))
            if value > self.recursion.entropy_threshold and self.recursion.max_recursions and row.spans()[-1]
        ]
        # Copied, so that a row which waits for its recursions does not hold the whole pass.
        copies = dict(zip(gated, plain[gated], strict=True))
        for number, (row, value) in enumerate(zip(starting, values, strict=True)):
            row.pending = Pending(copies.get(number, plain[number]), value)
        rows = [(starting[number], number) for number in gated]
        if self.recursion.kv == "overwrite":
            rows += self._fork_spans(rows)
        items, origins = [], []
        for row, origin in rows:
            assert row.pending is not None
            row.pending.items = [Item(row, span) for span in row.spans() if span > 0]
            items += row.pending.items
            origins += [origin] * len(row.pending.items)
        if items:
            self._items.join(items, self.stack.residuals, origins, plain[origins])

    def _fork_spans(self, gated: list[tuple[Row, int]]) -> list[tuple[Row, int]]:
        """Gives each span of a gated row a row of its own, since each will write its own cache entries.

        Args:
            gated: Rows with their number in the pass.

        Returns:
            The rows that were added, with the number of the row that each comes from.
        """
        number_of = {id(row): number for number, row in enumerate(self.rows)}
        added: list[tuple[Row, int]] = []
        sources: list[int] = []
        for row, number in gated:
            for span in row.spans()[1:]:
                branches = [branch for branch in row.branches if branch.cell.span == span]
                row.branches = [branch for branch in row.branches if branch.cell.span != span]
                assert row.pending is not None
                pending = Pending(row.pending.plain, row.pending.entropy)
                added.append((Row(row.job, branches, row.token, row.position, pending), number))
                sources.append(number_of[id(row)])
        if added:
            length = max(row.length for row, _ in added)
            targets = range(len(self.rows), len(self.rows) + len(added))
            self.rows += [row for row, _ in added]
            self._cache.reserve(len(self.rows), length)
            self._cache.copy_rows(sources, targets, length)
        return added

    def _advance(self, ready: list[Row], drawn: dict[Place, int], done: Done) -> None:
        """Retires finished cells, lets rows whose cells drew apart fork and closes the holes."""
        number_of = {id(row): number for number, row in enumerate(self.rows)}
        forks: list[tuple[int, Row]] = []
        dead: list[int] = []
        for place_of_row, row in enumerate(ready):
            self._count(row)
            number = number_of[id(row)]
            groups: dict[int, list[Branch]] = defaultdict(list)
            for place, branch in enumerate(row.branches):
                done.tokens += 1
                self._finish(row, branch, done, failed=(place_of_row, place) not in drawn)
                if branch.finish_reason is None:
                    groups[branch.tokens[-1] if self.share else place].append(branch)
            row.position, row.pending = row.position + 1, None
            if not groups:
                dead.append(number)
                if any((place_of_row, place) not in drawn for place in range(len(row.branches))):
                    # Its keys and values may be no numbers, which the slot's next row must not meet: a
                    # masked column weighs 0, and 0 times NaN is NaN.
                    self._cache.clear_row(number)
                continue
            first, *others = groups.values()
            row.branches, row.token = first, first[0].tokens[-1]
            forks += [(number, Row(row.job, group, group[0].tokens[-1], row.position)) for group in others]
        done.surplus = place_forks(
            self.rows, self._cache, forks, dead, limit=self._limit, can_wait=self._can_wait
        )

    def _clock(self) -> None:
        """Counts the pass for the jobs that took part in it."""
        for row in self.rows:
            row.job.row_passes += 1
        for job in {id(row.job): row.job for row in self.rows}.values():
            job.passes += 1

    def _count(self, row: Row) -> None:
        """Adds what a token of a row cost to its job."""
        assert row.pending is not None
        job = row.job
        job.row_steps += 1
        job.plain_layer_tokens += self.stack.depth
        job.head_evaluations += 1
        for item in row.pending.items:
            job.recursion_layer_tokens += item.span * len(item.divergences)
            job.head_evaluations += len(item.divergences)

    def _finish(self, row: Row, branch: Branch, done: Done, failed: bool) -> None:
        """Ends a cell whose newest token ends it or that got none, and its job with its last cell."""
        request = row.job.request
        if failed:
            branch.finish_reason = "error"
        elif branch.tokens[-1] in self.eos_token_ids or request.stop.reached(self.tokenizer, branch.tokens):
            branch.finish_reason = "stop"
        elif len(branch.tokens) >= request.max_new_tokens:
            branch.finish_reason = "length"
        else:
            return
        text = request.stop.cut(decode_text(self.tokenizer, branch.tokens, skip_special_tokens=True))
        row.job.finished.append((branch.order, branch.rollout(text, self.stack.depth, self.trace)))
        row.job.live -= 1
        done.rollouts += 1
        if not row.job.live:
            done.jobs.append(row.job)
            self._demand.learn(row.job.row_passes, row.job.passes * request.rows)
