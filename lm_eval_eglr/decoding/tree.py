"""The rollout tree: rows are distinct prefixes, each run once, that fork where their cells draw apart.

A row is a slot of the cache and the cells that have drawn the same tokens so far. Its numbers are arrays by
slot; which cells it has is said by :attr:`CellTable.slot`. A step's draws are appended in
:meth:`Tree.commit`, which loops over what happens (an end, a fork) and never over rows. It first reads what
it needs from the device, then changes what the host knows, and last copies rows, so that memory may run out
anywhere and nothing is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial

import numpy as np
from eglr_selectors.pool import FinishReason, Rollout
from transformers import PreTrainedTokenizerBase

from lm_eval_eglr.decoding.cells import REASONS, WAITING, CellTable, Ledger, Written
from lm_eval_eglr.decoding.forking import Forks, plan_forks, that_may_fork
from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.model.passes import PassOutput
from lm_eval_eglr.decoding.model.runner import Batch
from lm_eval_eglr.decoding.recursion import ActiveRecursions, Verdict
from lm_eval_eglr.decoding.request import Job, Request, StepResult, WaitingRow
from lm_eval_eglr.decoding.sampler import Draws
from lm_eval_eglr.decoding.stopping import decode_text
from lm_eval_eglr.decoding.telemetry import telemetry_of

OF_SLOTS = ("position", "token", "job", "active", "prompt", "_layers", "_heads")


class Tree:
    """The rows that are live, and the jobs that they belong to.

    Attributes:
        table: The cells.
        count: Number of live rows; they fill the slots from 0 on.
        position: Position of each row's newest token, by slot.
        token: The newest token, which has not been run yet, by slot.
        job: Index of its job, by slot.
        active: Its recursions in flight, by slot.
        prompt: Where its prompt is in the cache of prompts, and its positions that are stored there, by slot.
        ledger: What the jobs have cost.
        finished: Jobs whose last rollout has ended.
        preempted: Forked rows that there was no slot for.
        events: Counts changes of which rows there are.
        moved: By old slot the new one that the last commit gave rows; ``None`` if none has moved.
    """

    def __init__(
        self,
        table: CellTable,
        tokenizer: PreTrainedTokenizerBase,
        *,
        depth: int,
        end_tokens: frozenset[int],
        share: bool,
        trace: bool,
    ) -> None:
        """Has no rows.

        Args:
            table: The cells.
            tokenizer: For texts and stop strings.
            depth: Layers that every token runs through once.
            end_tokens: Tokens that end a rollout.
            share: Whether cells with equal prefixes share a row.
            trace: Whether telemetry keeps its per-token values.
        """
        self.table = table
        self.count = 0
        self.position = self.token = self.job = self.active = np.zeros(0, np.int64)
        self.prompt = np.zeros((0, 2), np.int64)
        self.finished: deque[Job] = deque()
        self.preempted: list[WaitingRow] = []
        self.events = 0
        self.moved: np.ndarray | None = None
        self.jobs: list[Job | None] = []
        self.ledger = Ledger(depth)
        self._layers = self._heads = np.zeros(0, np.int64)  # of the recursions of a slot's token
        self._tokenizer = tokenizer
        self._depth = depth
        self._end_tokens = np.array(sorted(end_tokens), np.int64)
        self._share = share
        self._trace = trace
        self._live: np.ndarray | None = None
        self._deep: tuple[np.ndarray, np.ndarray] | None = None  # slots, and spans of their cells
        self._is_plain: bool | None = None
        self._branches = False
        self._draws: Draws | None = None

    def begin(self, request: Request, number: int) -> list[WaitingRow]:
        """Takes in a request; returns the rows that it begins with, shared by all cells that can."""
        if None not in self.jobs:
            self.jobs.append(None)
        index = self.jobs.index(None)
        cells = len(request.cells)
        job = Job(request, number, index, cells, request.rows - cells)
        lines = self.table.add(job, request.cells, range(cells))
        if request.start is not None:
            self.table.start_with(lines, request.start.tokens, request.start.records)
        self.jobs[index] = job
        self.ledger.open(index)
        groups: dict[int, list[int]] = {}
        for line in lines:
            groups.setdefault(self.table.level(line) if self._share else line, []).append(line)
        return [WaitingRow(job, each) for each in groups.values()]

    def place(self, rows: Sequence[WaitingRow], prompts: Sequence[tuple[int, int]]) -> None:
        """Gives rows the next slots; ``prompts`` is what :attr:`prompt` says of them."""
        self._grow(self.count + len(rows))
        self.prompt[self.count : self.count + len(rows)] = prompts
        for slot, row in enumerate(rows, self.count):
            sequence = self.table.whole_sequence(row.cells[0])
            self.table.slot[row.cells] = slot
            self.position[slot], self.token[slot] = len(sequence) - 1, sequence[-1]
            self.job[slot] = row.job.index
            self.active[slot] = self._layers[slot] = self._heads[slot] = 0
        self.count += len(rows)
        self._changed()

    def evict(self) -> list[WaitingRow]:
        """Takes all rows their slots, as where the cache was lost; they can be placed again."""
        self.count = 0
        self._changed()
        groups: dict[tuple[int, ...], WaitingRow] = {}
        for cell in self.table.live().tolist():
            job = self.table.line(cell).job
            key = (job.index, self.table.level(cell), *self.table.sequence(cell)) if self._share else (cell,)
            groups.setdefault(key, WaitingRow(job, [])).cells.append(cell)
        for row in groups.values():
            self.table.slot[row.cells] = WAITING
        return list(groups.values())

    def _grow(self, rows: int) -> None:
        added = rows - len(self.position)
        if added > 0:
            added = max(added, len(self.position), 16)
            for name in OF_SLOTS:
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros((added, *old.shape[1:]), np.int64)]))

    def _changed(self) -> None:
        self.events += 1
        self._live = self._deep = self._draws = self._is_plain = None
        self._branches = any(job is not None and job.request.branching is not None for job in self.jobs)

    @property
    def columns(self) -> np.ndarray:
        """Column of each row's newest token among those that the row holds itself, by slot."""
        return self.position - self.prompt[:, 1]

    @property
    def is_plain(self) -> bool:
        """Whether no live cell can be recursed or branch: the next step depends on what is drawn alone."""
        if self._is_plain is None:
            self._is_plain = not self._branches and not self.table.span[self.live()[0]].any()
        return self._is_plain

    def live(self) -> tuple[np.ndarray, np.ndarray]:
        """The cells that have a row, ordered by slot, and their slots."""
        if self._live is None:
            self._live = self.table.live()
        return self._live, self.table.slot[self._live]

    def draws(self, starting: np.ndarray, recursions: ActiveRecursions) -> Draws:
        """What a pass of the rows ``starting``, and of the recursions in flight, gives draws to."""
        everyone = len(starting) == self.count and not len(recursions)
        if everyone and self._draws is not None:
            return self._draws
        live, slots = self.live()
        branching = partial(that_may_fork, self.table, self.jobs) if self._branches else None
        draws = Draws.of(live, slots, self.table.span[live], starting, recursions, branching)
        if everyone:
            self._draws = draws
        return draws

    def commit(
        self,
        batch: Batch,
        output: PassOutput,
        verdict: Verdict,
        flags: np.ndarray,
        cache: KVCache,
        *,
        max_recursions: int,
        limit: int,
        written: Written | None = None,
        ahead: bool = False,
    ) -> StepResult:
        """Appends what a step drew: rollouts end, rows fork, and holes are closed.

        Args:
            batch: What ran; its recursions are brought up to date.
            output: What the pass returned.
            verdict: What it decided.
            flags: What the device said, see :class:`~lm_eval_eglr.decoding.sampler.Drawn`.
            cache: Holds the rows' keys and values.
            max_recursions: 0 never recurses.
            limit: Most live rows; more only for rows that cannot wait.
            written: When the device had recorded the draws.
            ahead: Whether the device has been given the next step.
        """
        table, recursions, draws = self.table, batch.recursions, batch.draws
        starting = batch.slots[: batch.starting]
        joined = len(batch.slots)
        gated, ended = flags[: batch.starting] > 0, flags[batch.starting : joined] > 0
        drawn, rest = flags[joined : joined + len(draws.cells)], flags[joined + len(draws.cells) :]
        table.drawn[draws.cells] = drawn.astype(np.int64, copy=False)
        may_recurse = max_recursions and not self.is_plain
        new_slots, new_spans = self._to_recurse(starting[gated] if may_recurse else starting[:0])
        active = self.active[: self.count] + np.bincount(new_slots, minlength=self.count)
        active -= np.bincount(recursions.slots[ended], minlength=self.count)
        complete = np.zeros(self.count, bool)
        complete[batch.slots] = True
        complete &= active == 0

        branches: Forks | None = None
        try:
            if draws.branching:
                size = output.logprobs.shape[-1]
                branches = plan_forks(table, self.jobs, draws.cells, draws.branching, rest, size)
                self._changed()
            live, slots = self.live()
            ready = live[complete[slots]]
            lengths, reasons = table.append(ready, self._end_tokens, self._tokenizer)
            over = np.flatnonzero(reasons)
            records = table.read(ready[over], lengths[over], written if ahead else None) if len(over) else []
        except BaseException:
            if branches is not None:
                branches.undo(table)
                self._changed()
            raise

        # From here on nothing is asked of the device until the host is done.
        if branches is not None:
            branches.take(table)
        table.length[ready] = lengths
        self.position[: self.count] += complete
        self.active[: self.count] = active
        self._count_work(complete, recursions, ended, output.work)
        survivors, dead, broken = ready, starting[:0], starting[:0]
        if len(over):
            survivors = ready[reasons == 0]
            left = np.zeros(self.count, bool)
            left[table.slot[survivors]] = True
            dead = np.flatnonzero(complete & ~left)
            broken = np.intersect1d(
                table.unforeseen(ready, reasons, self._end_tokens if ahead else None), dead
            )
            for place, record in zip(over.tolist(), records, strict=True):
                self._finish(int(ready[place]), REASONS[reasons[place]], record)
            table.retire(ready[over])
            self._changed()
        forks = self._plan_forks(self._forks(survivors, dead), dead, limit)
        lengths_of_forks = int(self.columns[[source for source, _ in forks]].max()) if forks else 0
        moves = self._plan_moves(forks, dead)

        recursions.update(ended, output, verdict, np.searchsorted(starting, new_slots), new_slots, new_spans)
        # Keys and values that may be no numbers must not meet the slot's next row: a masked column's weight
        # is 0, and 0 times NaN is NaN.
        if len(broken):
            cache.clear_rows(broken.tolist())
        if forks:
            cache.reserve(max(self.count, *(target + 1 for _, target in forks)), lengths_of_forks)
            sources, targets = zip(*forks, strict=True)
            cache.copy_rows(sources, targets, lengths_of_forks)
        if moves and self.moved is not None:
            sources, targets = zip(*moves, strict=True)
            # A row that is being recursed has its newest token stored, too.
            cache.copy_rows(sources, targets, int(self.columns[list(targets)].max()) + 1)
            cache.clear_rows(sources if ahead else ())  # where their next tokens have run, too
            recursions.move(self.moved)
        return StepResult(len(ready), len(over))

    def _to_recurse(self, gated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slots and spans of the recursions that gated rows begin, each span of a row's cells once."""
        if not len(gated):
            return gated, gated
        if self._deep is None:
            live, slots = self.live()
            keys = np.unique(slots * (self._depth + 1) + self.table.span[live])
            self._deep = np.divmod(keys[keys % (self._depth + 1) > 0], self._depth + 1)
        chosen = np.zeros(self.count, bool)
        chosen[gated] = True
        slots, spans = self._deep
        return slots[chosen[slots]], spans[chosen[slots]]

    def _count_work(
        self, complete: np.ndarray, recursions: ActiveRecursions, ended: np.ndarray, work: np.ndarray | None
    ) -> None:
        """Adds to their jobs what the tokens of complete rows have cost; ``work`` is that of the pass."""
        rows = np.flatnonzero(complete)
        taken = None if work is None else work.T
        if len(recursions):
            slots, made = recursions.slots[ended], recursions.iterations[ended]
            np.add.at(self._layers, slots, recursions.spans[ended] * made)
            np.add.at(self._heads, slots, made)
            taken = np.array([self._layers[rows], self._heads[rows]])
            self._layers[rows] = self._heads[rows] = 0
        self.ledger.count_tokens(self.job[rows], taken)

    def _finish(self, cell: int, reason: FinishReason, records: np.ndarray) -> None:
        """Ends a rollout, and its job with its last one."""
        table, line = self.table, self.table.line(cell)
        job, request = line.job, line.job.request
        tokens = table.sequence(cell)
        text = request.stop.cut(decode_text(self._tokenizer, tokens, skip_special_tokens=True))
        branches, level = request.branching is not None, line.cell.span
        telemetry = telemetry_of(
            records, axis=table.axis, level=level, depth=self._depth, trace=self._trace, branches=branches
        )
        rollout = Rollout(text, line.cell, reason, tuple(tokens), telemetry)
        job.finished.append((int(table.order[cell]), rollout))
        job.live -= 1
        if not job.live:
            self.ledger.close(job)
            self.jobs[job.index] = None
            self.finished.append(job)

    def _forks(self, survivors: np.ndarray, dead: np.ndarray) -> list[tuple[int, list[int]]]:
        """Rows that part from others, with the slots of these; notes the newest token of those that stay."""
        slots = self.table.slot[survivors]
        if len(self.live()[0]) == self.count - len(dead):  # every row has one cell
            self.token[slots] = self.table.drawn[survivors]
            return []
        distinct, first, counts = np.unique(slots, return_index=True, return_counts=True)
        newest = self.table.drawn[survivors]
        self.token[distinct] = newest[first]
        if len(distinct) == len(survivors):
            return []
        same = newest == np.repeat(newest[first], counts)
        if not self._share:
            same = np.isin(np.arange(len(slots)), first)
        groups: dict[tuple[int, int], list[int]] = {}
        for place in np.flatnonzero(~same).tolist():
            key = (int(slots[place]), int(newest[place]) if self._share else place)
            groups.setdefault(key, []).append(int(survivors[place]))
        return [(slot, cells) for (slot, _), cells in groups.items()]

    def _plan_forks(
        self, forks: list[tuple[int, list[int]]], dead: np.ndarray, limit: int
    ) -> list[tuple[int, int]]:
        """Gives forked rows the slots of dead ones, then new ones; the others are preempted.

        Returns:
            Source and target slot of each row that is to be copied.
        """
        if not forks:
            return []

        def can_wait(fork: tuple[int, list[int]]) -> bool:
            return self.table.line(fork[1][0]).job.request.is_preemptible

        forks.sort(key=can_wait)  # those that cannot wait come first
        room = len(dead) + max(0, limit - self.count)
        room = max(room, sum(not can_wait(fork) for fork in forks))
        for _, cells in forks[room:]:
            self.table.slot[cells] = WAITING
            self.preempted.append(WaitingRow(self.table.line(cells[0]).job, cells))
        placed = forks[:room]
        targets = dead[: len(placed)].tolist()
        targets += range(self.count, self.count + len(placed) - len(targets))
        self._grow(self.count + len(placed))
        for (source, cells), target in zip(placed, targets, strict=True):
            self.table.slot[cells] = target
            self.token[target] = self.table.drawn[cells[0]]
            for values in (self.position, self.job, self.prompt):
                values[target] = values[source]
            self.active[target] = self._layers[target] = self._heads[target] = 0
        self.count = max(self.count, max(targets, default=-1) + 1)
        self._changed()
        return [(source, target) for (source, _), target in zip(placed, targets, strict=True)]

    def _plan_moves(self, forks: list[tuple[int, int]], dead: np.ndarray) -> list[tuple[int, int]]:
        """Closes the holes of dead rows with the last ones; source and target slot of each that moves."""
        self.moved = None
        holes = set(dead[len(forks) :].tolist())
        if not holes:
            return []
        count = self.count - len(holes)
        sources = [slot for slot in range(count, self.count) if slot not in holes]
        moves = list(zip(sources, sorted(hole for hole in holes if hole < count), strict=True))
        self.moved = slot_of = np.arange(self.count)
        for source, target in moves:
            slot_of[source] = target
            for name in OF_SLOTS:
                values = getattr(self, name)
                values[target] = values[source]
        live = np.flatnonzero(self.table.slot >= 0)
        self.table.slot[live] = slot_of[self.table.slot[live]]
        self.count = count
        self._changed()
        return moves
