"""The decode loop: a pool is a trie of rows, each run once, that fork where their cells draw apart."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from eglr_selectors.pool import RolloutPool
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm_eval_eglr.decoding.attention import RowAttention
from lm_eval_eglr.decoding.branching import branch_out
from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.costs import CostModel
from lm_eval_eglr.decoding.cpu_linear import CpuLinear
from lm_eval_eglr.decoding.distributions import Distributions
from lm_eval_eglr.decoding.drawing import draw_tokens
from lm_eval_eglr.decoding.layer_stack import LayerStack
from lm_eval_eglr.decoding.recursion import entropy, recurse
from lm_eval_eglr.decoding.row_cache import RowCache
from lm_eval_eglr.decoding.rows import Branch, Job, Place, Request, Row
from lm_eval_eglr.decoding.shortage import OutOfMemory, is_shortage, release_memory
from lm_eval_eglr.decoding.stopping import decode_text
from lm_eval_eglr.decoding.ties import rounding_of
from lm_eval_eglr.decoding.token_records import record_tokens
from lm_eval_eglr.decoding.waiting import Waiting

logger = logging.getLogger(__name__)

PREFILL_CHUNK = 512  # positions per prefill pass
PREFILL_TOKENS = 8192  # rows × positions per prefill pass, which bounds its activations


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
    ) -> None:
        self.stack = stack
        self.tokenizer = tokenizer
        self.recursion = recursion
        self.max_rows = max_rows
        self.eos_token_ids = eos_token_ids
        self.share = share
        self.trace = trace
        self.rows: list[Row] = []
        self._stepped: list[Row] = []  # the rows of the running step, as it found them
        self._advancing = False  # whether the running step has begun to change what rows hold
        self._limit = max_rows  # fewer after memory ran out
        self._cache = RowCache(max_rows)
        self._attention = RowAttention(stack.model)
        self._linear = CpuLinear(stack.model)
        self._rounding = rounding_of(stack.model.dtype)
        self.costs = CostModel(stack.depth, stack.layer_parameters(), stack.head_parameters())

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
        waiting = Waiting(requests, self.max_rows, self.share)
        # A run that was abandoned half-way leaves nothing behind.
        self.rows, self._cache, self._limit = [], RowCache(self.max_rows), self.max_rows
        self._advancing = False
        while True:
            shortage = ""
            # Not around the yield: whoever takes the pools may use the model in between.
            with torch.no_grad(), self._attention(), self._linear(), self.stack.recording():
                try:
                    self._admit(waiting)
                    if not self.rows:
                        return
                    tokens = sum(len(row.branches) for row in self.rows)
                    done = self.step()
                except Exception as error:
                    if not is_shortage(error):
                        raise
                    shortage = " ".join(str(error).split()) or type(error).__name__
            if shortage:
                # Outside of the handler, which keeps the failed step's tensors.
                self._halve(waiting, shortage)
                continue
            self._suspend(waiting)
            if progress is not None:
                progress(tokens, done.rollouts)
            for job in done.jobs:
                yield job.number, self._pool(job)

    def step(self) -> _Done:
        """Decodes one token of every live cell."""
        self._stepped = list(self.rows)
        plain = self._forward()
        distributions = self._refine(plain)
        drawn = draw_tokens(self.rows, distributions, self._rounding)
        self._advancing = True
        branch_out(self.rows, drawn, distributions)
        done = self._advance(drawn, distributions)
        self._advancing = False
        return done

    def _halve(self, waiting: Waiting, shortage: str) -> None:
        """Makes room after memory ran out: all rows wait, to go on half as many at a time.

        A step that had begun to append tokens cannot be taken back, and not every pool can go on in parts:
        those begin anew, and draw what they drew.

        Raises:
            OutOfMemory: If a single row was too many.
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
        anew = {row.job.number: row.job for row in rows if self._advancing or not self._parts_go_on(row)}
        waiting.withdraw(anew)
        rows = [row for row in rows if row.job.number not in anew]
        begun = [Job.begun(job.request, job.number) for job in anew.values()]
        rows += [row for job in begun for row in job.rows(self.share)]
        self.rows, self._stepped, self._advancing = [], [], False
        self._cache = RowCache(self._limit)
        waiting.suspend(rows)
        release_memory()

    def _parts_go_on(self, row: Row) -> bool:
        """Whether a row can wait with its tokens while others of its pool go on.

        Not under ``overwrite``, where its cache depends on the path; and not where rollouts branch, since
        which of them may is decided token by token over the whole pool.
        """
        return self.recursion.kv == "keep" and row.job.request.branching is None

    def _suspend(self, waiting: Waiting) -> None:
        """Lets the newest rows wait where forks have made more than may be."""
        surplus = self.rows[self._limit :]
        if not surplus or any(row.job.request.branching is not None for row in surplus):
            return  # no part of a pool that branches can wait, even if it is more than fits
        if self.recursion.kv == "overwrite":
            surplus = [row.from_the_start() for row in surplus]
        del self.rows[self._limit :]
        waiting.suspend(surplus)

    def _admit(self, waiting: Waiting) -> None:
        """Moves waiting rows into free ones and runs all their tokens but the last."""
        admitted = waiting.rows(self.rows, self._limit)
        if admitted:
            self._prefill(admitted)

    def _prefill(self, admitted: list[Row]) -> None:
        """Fills the cache with all tokens but the newest, which the next step runs.

        Equal ones of a pool are run once and copied, also where its cells do not share their rows.
        """
        sequences: dict[tuple[int, tuple[int, ...]], list[Row]] = {}
        for row in admitted:
            prefix = tuple(row.sequence()[: row.position])
            sequences.setdefault((row.job.number, prefix), []).append(row)
        prefixes, start = [prefix for _, prefix in sequences], len(self.rows)
        firsts = [same[0] for same in sequences.values()]
        others = [(start + n, row) for n, same in enumerate(sequences.values()) for row in same[1:]]
        self.rows += firsts + [row for _, row in others]
        longest = max(map(len, prefixes))
        self._cache.reserve(len(self.rows), longest + 1)
        for column in range(0, longest, PREFILL_CHUNK):
            queries = min(PREFILL_CHUNK, longest - column)
            batch = max(1, PREFILL_TOKENS // queries)
            for first in range(0, len(prefixes), batch):
                some = prefixes[first : first + batch]
                tokens = torch.zeros(len(some), queries, dtype=torch.long)
                for i, sequence in enumerate(some):
                    # Padding on the right is never attended to, and overwritten as the row grows.
                    part = sequence[column : column + queries]
                    tokens[i, : len(part)] = torch.tensor(part, dtype=torch.long)
                positions = torch.arange(column, column + queries).expand(len(some), -1)
                slots = slice(start + first, start + first + len(some))
                self._cache.begin_prefill(slots, column, queries)
                self.stack.forward(tokens, positions, self._cache)
        if others:
            targets = range(start + len(firsts), len(self.rows))
            self._cache.copy_rows([origin for origin, _ in others], targets, longest)
        for row in firsts:
            # What is prefilled once more after a shortage is not counted: it is not of the method's making.
            if row.job.row_steps == 0:
                row.job.plain_layer_tokens += self.stack.depth * row.position

    def _forward(self) -> Tensor:
        """Runs the newest token of every row; returns plain log-probabilities, ``[rows, vocab]``."""
        positions = torch.tensor([row.position for row in self.rows])
        tokens = torch.tensor([[row.token] for row in self.rows])
        self._cache.reserve(len(self.rows), int(positions.max()) + 1)
        self._cache.begin_step(positions)
        normed = self.stack.forward(tokens, positions[:, None], self._cache)
        return self.stack.unembed(normed[:, 0]).log_softmax(-1)

    def _refine(self, plain: Tensor) -> Distributions:
        """Recurses gated rows once per distinct span among their cells."""
        entropies: list[float] = entropy(plain).tolist()
        gated = [
            number
            for number, value in enumerate(entropies)
            if value > self.recursion.entropy_threshold and self.recursion.max_recursions > 0
        ]
        source = list(range(len(self.rows)))
        if self.recursion.kv == "overwrite":
            source += self._fork_spans(gated)
            parents = set(gated)
            gated = [number for number, origin in enumerate(source) if origin in parents]
        index = {(row, 0): source[row] for row in range(len(self.rows))}
        items = [(row, span) for row in gated for span in self.rows[row].spans() if span > 0]
        for number, (row, span) in enumerate(items):
            index[row, span] = len(plain) + number
        if not items:
            return Distributions(plain, entropies, index, None, len(plain))

        slots = torch.tensor([row for row, _ in items])
        origins = torch.tensor([source[row] for row, _ in items])
        refinement = recurse(
            self.stack,
            self._cache,
            plain[origins],
            [span for _, span in items],
            rows=origins,
            slots=slots,
            positions=torch.tensor([self.rows[row].position for row, _ in items]),
            config=self.recursion,
        )
        entropies += entropy(refinement.logprobs).tolist()
        logprobs = torch.cat([plain, refinement.logprobs])
        return Distributions(logprobs, entropies, index, refinement, len(plain))

    def _fork_spans(self, gated: list[int]) -> list[int]:
        """Gives each span of a gated row a row of its own, since each will write its own cache entries.

        Returns:
            The origins of the rows that were added, in order.
        """
        origins: list[int] = []
        for number in gated:
            row = self.rows[number]
            for span in row.spans()[1:]:
                branches = [branch for branch in row.branches if branch.cell.span == span]
                row.branches = [branch for branch in row.branches if branch.cell.span != span]
                self.rows.append(Row(row.job, branches, row.token, row.position))
                origins.append(number)
        if origins:
            length = max(self.rows[number].position for number in origins) + 1
            self._cache.reserve(len(self.rows), length)
            targets = range(len(self.rows) - len(origins), len(self.rows))
            self._cache.copy_rows(origins, targets, length)
        return origins

    def _advance(self, drawn: dict[Place, int], distributions: Distributions) -> _Done:
        """Appends the drawn tokens, retires finished cells, forks rows and closes the holes."""
        done = _Done(jobs=[], rollouts=0)
        self._count(distributions)
        record_tokens(self.rows, drawn, distributions, self.recursion, self._rounding)
        forks: list[tuple[int, Row]] = []
        dead: list[int] = []
        for number, row in enumerate(self.rows):
            groups: dict[int, list[Branch]] = defaultdict(list)
            for place, branch in enumerate(row.branches):
                self._finish(row, branch, done, failed=(number, place) not in drawn)
                if branch.finish_reason is None:
                    groups[branch.tokens[-1] if self.share else place].append(branch)
            row.position += 1
            if not groups:
                dead.append(number)
                if any((number, place) not in drawn for place in range(len(row.branches))):
                    # Its keys and values may be no numbers, which the slot's next row must not meet: a
                    # masked column weighs 0, and 0 times NaN is NaN.
                    self._cache.clear_row(number)
                continue
            first, *others = groups.values()
            row.branches, row.token = first, first[0].tokens[-1]
            forks += [(number, Row(row.job, group, group[0].tokens[-1], row.position)) for group in others]
        self._place(forks, dead)
        return done

    def _count(self, distributions: Distributions) -> None:
        """Adds what the step cost to its jobs."""
        for row in self.rows:
            row.job.row_steps += 1
            row.job.plain_layer_tokens += self.stack.depth
            row.job.head_evaluations += 1
        for (number, span), entry in distributions.index.items():
            iterations, _, _ = distributions.outcome(entry)
            self.rows[number].job.recursion_layer_tokens += span * iterations
            self.rows[number].job.head_evaluations += iterations

    def _finish(self, row: Row, branch: Branch, done: _Done, failed: bool) -> None:
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

    def _place(self, forks: list[tuple[int, Row]], dead: list[int]) -> None:
        """Gives forked rows the slots of dead ones, then new ones, and closes the holes that are left."""
        if forks:
            targets = dead[: len(forks)]
            targets += range(len(self.rows), len(self.rows) + len(forks) - len(targets))
            length = max(row.position for _, row in forks)
            self._cache.reserve(max(len(self.rows), max(targets) + 1), length)
            # A dead row is no fork's source, so the order of the copies does not matter.
            self._cache.copy_rows([number for number, _ in forks], targets, length)
            for (_, row), target in zip(forks, targets, strict=True):
                if target < len(self.rows):
                    self.rows[target] = row
                else:
                    self.rows.append(row)
        for hole in sorted(dead[len(forks) :], reverse=True):
            last = len(self.rows) - 1
            if hole < last:
                self._cache.copy_rows([last], [hole], self.rows[last].position)
                self.rows[hole] = self.rows[last]
            self.rows.pop()

    def _pool(self, job: Job) -> RolloutPool:
        rollouts = tuple(rollout for _, rollout in sorted(job.finished, key=lambda entry: entry[0]))
        cost = self.costs.pool_cost(
            prompt_tokens=len(job.request.tokens),
            tokens=sum(len(rollout.tokens) for rollout in rollouts),
            rows=job.row_steps,
            plain_layer_tokens=job.plain_layer_tokens,
            recursion_layer_tokens=job.recursion_layer_tokens,
            head_evaluations=job.head_evaluations,
        )
        return RolloutPool(rollouts, job.request.prompt, cost)


@dataclass(slots=True)
class _Done:
    """What a step finished."""

    jobs: list[Job]
    rollouts: int
