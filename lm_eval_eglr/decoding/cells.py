"""The table of cells: what is known of every rollout that is being decoded, as arrays; and of every job.

What the device writes and the host reads only at the end (telemetry) or never (uniforms) lies on the device;
what decides how to go on (tokens, lengths, slots) lies on the host, which sees every token anyway.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from eglr_selectors.pool import Cell, FinishReason
from transformers import PreTrainedTokenizerBase

from lm_eval_eglr.decoding.depth import DepthAxis
from lm_eval_eglr.decoding.numerics import on_device
from lm_eval_eglr.decoding.request import Job
from lm_eval_eglr.decoding.sampling import BLOCK, DrawStream, Truncation, truncation_of
from lm_eval_eglr.decoding.stopping import StopRule
from lm_eval_eglr.decoding.telemetry import FIELDS

FREE, WAITING = -2, -1
"""Slots of a line of the table that nobody uses, and of a cell that is not being decoded now."""
NEVER = -(1 << 40)

STOP, LENGTH, ERROR = 1, 2, 3
REASONS: dict[int, FinishReason] = {STOP: "stop", LENGTH: "length", ERROR: "error"}
"""Why a rollout ends; 0 is for one that goes on."""


class Written(NamedTuple):
    """When records were written: the device's event after it, and :attr:`CellTable.growth` before it."""

    event: torch.cuda.Event
    growth: int


@dataclass(slots=True)
class _Line:
    """What a cell is, and is looked at only when something happens to it."""

    job: Job
    cell: Cell
    stream: DrawStream


class CellTable:
    """Lines of cells; a cell's line stays its own until its rollout ends.

    Attributes:
        slot: Row of the cache whose prefix each cell has, :data:`WAITING` or :data:`FREE`.
        job: Index of its job.
        order: Its place among the cells of its request.
        span: Its level of depth: span L, or recurrences.
        temperature: Its temperature.
        length: Tokens that it has drawn.
        limit: How many it may have.
        truncation: Index into :attr:`truncations`.
        stop: Index into :attr:`stops`; 0 for none.
        tokens: What it has drawn, ``[cells, columns]``.
        drawn: The newest draw, of which its recursions may still make another; -1 for none.
        forked: Token at which it last forked or parted from another.
        parting: Token at which it will part from a finished rollout that it goes on from; -1 for none.
        growth: How often tensors were made anew.
        axis: What levels of depth are.
    """

    def __init__(self, axis: DepthAxis) -> None:
        """Has no cell and no memory yet; ``axis`` says what levels of depth are."""
        self.axis = axis
        self.truncations: list[Truncation] = []
        self.stops: list[StopRule] = [StopRule()]
        self.growth = 0
        self._lines: list[_Line | None] = []
        self._free: list[int] = []
        self._device: torch.device | None = None
        self._stream: torch.cuda.Stream | None = None
        self._seeds: list[tuple[int, np.ndarray]] = []
        self._drawable = np.zeros(0, np.int64)  # length up to which a cell's uniforms are on the device
        self.slot = self.job = self.order = self.span = self.length = self.limit = np.zeros(0, np.int64)
        self.truncation = self.stop = self.drawn = self.forked = self.parting = np.zeros(0, np.int64)
        self.temperature = np.zeros(0)
        self.tokens = np.zeros((0, 32), np.int64)
        self.telemetry = self.uniforms = self.plain = torch.empty(0)

    def __len__(self) -> int:
        """Cells that are in use."""
        return len(self._lines) - len(self._free)

    def line(self, cell: int) -> _Line:
        """The job, coordinate and draws of a cell."""
        line = self._lines[cell]
        assert line is not None
        return line

    def level(self, cell: int) -> int:
        """The level of depth that all cells of its row have; 0 where cells of all levels share one."""
        return 0 if self.axis.shares_rows else int(self.span[cell])

    def live(self) -> np.ndarray:
        """The cells that have a row, ordered by row and by their place in the request."""
        cells = np.flatnonzero(self.slot >= 0)
        return cells[np.lexsort((self.order[cells], self.slot[cells]))]

    def reserve(self, more: int) -> None:
        """Makes room for that many cells; what is there stays. Growth is geometric."""
        missing = more - len(self._free)
        if missing <= 0:
            return
        before = len(self._lines)
        capacity = max(before + missing, 2 * before, 16)
        if self._device is not None:
            self._resize(capacity, self.telemetry.shape[1])
        added = capacity - before
        for name in (*_COLUMNS, "_drawable"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros(added, old.dtype)]))
        self.slot[before:] = FREE
        self.tokens = np.concatenate([self.tokens, np.zeros((added, self.tokens.shape[1]), np.int64)])
        self._lines += [None] * added
        self._free += range(capacity - 1, before - 1, -1)

    def add(self, job: Job, cells: Sequence[Cell], orders: Sequence[int]) -> list[int]:
        """Adds cells of a job, which wait for a row; returns their lines."""
        self.reserve(len(cells))
        request = job.request
        self.widen(min(request.max_new_tokens, BLOCK))  # to grow step by step would copy all records
        truncation, stop = self._truncation(job), self._stop(job)
        found = []
        for cell, order in zip(cells, orders, strict=True):
            line = self._free.pop()
            self._lines[line] = _Line(job, cell, DrawStream(request.sampling, request.document, cell))
            self.slot[line] = WAITING
            self.job[line], self.order[line] = job.index, order
            self.span[line], self.temperature[line] = cell.span, cell.temperature or 0.0
            self.length[line], self.limit[line] = 0, request.max_new_tokens
            self.truncation[line], self.stop[line] = truncation, stop
            self.drawn[line], self.forked[line], self.parting[line] = -1, NEVER, -1
            self._drawable[line] = 0
            found.append(line)
        return found

    def _truncation(self, job: Job) -> int:
        key = truncation_of(job.request.sampling)
        if key not in self.truncations:
            self.truncations.append(key)
        return self.truncations.index(key)

    def _stop(self, job: Job) -> int:
        rule = job.request.stop
        if not rule.active:
            return 0
        if rule not in self.stops:
            self.stops.append(rule)
        return self.stops.index(rule)

    def start_with(self, cells: Sequence[int], tokens: Sequence[int], records: np.ndarray) -> None:
        """Gives cells their first tokens and the records of these, ``[tokens, fields]``; then they part."""
        count = len(tokens)
        self.parting[cells] = count
        if not count:
            return
        self.widen(count)
        self.tokens[cells, :count] = tokens
        self.length[cells] = count
        self._seeds += [(cell, records) for cell in cells]
        try:
            self._sow()
        except BaseException:
            self._seeds.clear()
            self.retire(np.array(cells))
            raise

    def _sow(self) -> None:
        """Writes first records, once there is where to write them."""
        while self._seeds and self._device is not None:
            cell, records = self._seeds[-1]
            self.telemetry[cell, : len(records)] = torch.from_numpy(records).to(self.telemetry)
            self._seeds.pop()

    def retire(self, cells: np.ndarray) -> None:
        """Gives lines back."""
        self.slot[cells] = FREE
        for cell in cells.tolist():
            self._lines[cell] = None
            self._free.append(cell)

    def sequence(self, cell: int) -> list[int]:
        """The tokens that a cell has drawn."""
        tokens: list[int] = self.tokens[cell, : self.length[cell]].tolist()
        return tokens

    def whole_sequence(self, cell: int) -> list[int]:
        """The tokens of a cell's prompt and those that it has drawn."""
        request = self.line(cell).job.request
        return [*request.tokens[: request.prompt_length], *self.sequence(cell)]

    def append(
        self, cells: np.ndarray, end_tokens: np.ndarray, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[np.ndarray, np.ndarray]:
        """Writes the newest tokens of cells behind their last ones, and does not count them yet.

        Args:
            cells: The cells, ``[cells]``.
            end_tokens: Tokens that end every rollout.
            tokenizer: For stop strings.

        Returns:
            How long the cells are with them, and why they end, as number into :data:`REASONS`; 0 for those
            that go on.
        """
        newest, lengths = self.drawn[cells], self.length[cells]
        # A draw that failed is written, too, but not counted.
        self.tokens[cells, lengths] = newest
        lengths = lengths + (newest >= 0)
        reasons = np.where(lengths >= self.limit[cells], LENGTH, 0)
        reasons[(newest[:, None] == end_tokens).any(1)] = STOP
        if len(self.stops) > 1:
            stops = self.stop[cells]
            watched = np.flatnonzero((stops > 0) & (reasons != STOP) & (newest >= 0))
            # A token's text is looked at once per run, and a rollout's where its newest token may matter.
            pairs, inverse = np.unique(stops[watched] * (1 << 32) + newest[watched], return_inverse=True)
            may = [self.stops[pair >> 32].may_end(tokenizer, pair % (1 << 32)) for pair in pairs.tolist()]
            for place in watched[np.array(may, bool)[inverse]].tolist():
                tokens = self.tokens[cells[place], : lengths[place]].tolist()
                if self.stops[stops[place]].reached(tokenizer, tokens):
                    reasons[place] = STOP
        reasons[newest < 0] = ERROR
        return lengths, reasons

    def unforeseen(self, cells: np.ndarray, reasons: np.ndarray, end_tokens: np.ndarray | None) -> np.ndarray:
        """Slots of cells that have ended so that their row may hold keys and values that are no numbers.

        Args:
            cells: Cells that have drawn, ``[cells]``.
            reasons: Why they end.
            end_tokens: Given where the device runs ahead: then a stop string's last token has run, too, whose
                keys and values nobody has looked at.
        """
        found: np.ndarray = reasons == ERROR
        if end_tokens is not None:
            found |= (reasons == STOP) & ~np.isin(self.drawn[cells], end_tokens)
        slots: np.ndarray = self.slot[cells[found]]
        return slots

    # What lies on the device.

    def attach(self, device: torch.device, dtype: torch.dtype) -> None:
        """Puts the device's part of the table where distributions are, with their type."""
        if self._device is None:
            self._device, self._dtype = device, dtype
            self._resize(len(self._lines), self.tokens.shape[1])
            self._sow()

    def widen(self, columns: int) -> None:
        """Makes room for that many tokens per cell."""
        before = self.tokens.shape[1]
        if columns <= before:
            return
        width = max(columns, 2 * before)
        if self._device is not None:
            self._resize(len(self._lines), width)
        wider = np.zeros((len(self._lines), width), np.int64)
        wider[:, :before] = self.tokens
        self.tokens = wider

    def _resize(self, cells: int, columns: int) -> None:
        """One line more than there are cells: draws that are nobody's are written there."""
        self.growth += 1
        shapes = ((cells + 1, columns, len(FIELDS)), (cells + 1, BLOCK), (cells + 1,))
        types = (self._dtype, self._dtype, torch.long)
        held = (self.telemetry, self.uniforms, self.plain)
        made = []
        for shape, dtype, old in zip(shapes, types, held, strict=True):
            new = torch.zeros(shape, dtype=dtype, device=self._device)
            if old.numel():
                count = len(old) - 1
                new[:count][tuple(slice(0, size) for size in old[:count].shape)] = old[:count]
            made.append(new)
        self.telemetry, self.uniforms, self.plain = made

    def prepare(self, cells: np.ndarray, lengths: np.ndarray) -> None:
        """Makes room for a token behind ``lengths`` others of cells, and has their uniforms on the device."""
        self.widen(int(lengths.max()) + 1)
        stale = np.flatnonzero(lengths >= self._drawable[cells])
        if not len(stale):
            return
        lines, numbers = cells[stale], lengths[stale] // BLOCK
        blocks = np.array(
            [
                self.line(cell).stream.block(number)
                for cell, number in zip(lines.tolist(), numbers.tolist(), strict=True)
            ]
        )
        device = self.uniforms.device
        self.uniforms[on_device(lines, device)] = on_device(blocks, device).to(self._dtype)
        self._drawable[lines] = (numbers + 1) * BLOCK

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Gives cells the tokens and records of others."""
        self.tokens[list(targets)] = self.tokens[list(sources)]
        self.length[list(targets)] = self.length[list(sources)]
        self.telemetry[list(targets)] = self.telemetry[list(sources)]

    def read(self, cells: np.ndarray, lengths: np.ndarray, written: Written | None) -> list[np.ndarray]:
        """The records of cells, ``[tokens, fields]`` each, in one transfer.

        Args:
            cells: The cells.
            lengths: Tokens of each.
            written: When the newest of them were written, where the device may have been given more since.
        """
        with contextlib.ExitStack() as beside:
            if written is not None and written.growth == self.growth:
                # On a stream of its own, so as not to wait for what has been launched since.
                self._stream = self._stream or torch.cuda.Stream(self._device)
                self._stream.wait_event(written.event)
                beside.enter_context(torch.cuda.stream(self._stream))
            index = on_device(cells, self.telemetry.device)
            records = self.telemetry[:, : int(lengths.max())].index_select(0, index).cpu().numpy()
        return [line[:length] for line, length in zip(records, lengths.tolist(), strict=True)]


_COLUMNS = (
    *("slot", "job", "order", "span", "temperature", "length", "limit"),
    *("truncation", "stop", "drawn", "forked", "parting"),
)


class Ledger:
    """What jobs that are being decoded have cost so far."""

    def __init__(self, depth: int) -> None:
        """Counts for a model of ``depth`` layers."""
        self._depth = depth
        # By index of the job: passes of its rows, passes, tokens of its rows, positions of its prompt that
        # were read, and layers and heads beyond those that every token takes.
        self._counts = np.zeros((6, 0), np.int64)

    def open(self, index: int) -> None:
        """Begins to count for a job."""
        if index == self._counts.shape[1]:
            self._counts = np.concatenate([self._counts, np.zeros((6, 1), np.int64)], 1)
        self._counts[:, index] = 0

    def close(self, job: Job) -> None:
        """Writes a job's counts into it."""
        row_passes, passes, row_steps, positions, layers, heads = self._counts[:, job.index].tolist()
        job.row_passes, job.passes, job.row_steps = row_passes, passes, row_steps
        job.plain_layer_tokens = self._depth * (positions + row_steps)
        job.recursion_layer_tokens = layers
        job.head_evaluations = row_steps + heads

    def has_run(self, job: Job) -> bool:
        """Whether a job has had a token drawn."""
        return bool(self._counts[2, job.index])

    def count_pass(self, jobs: np.ndarray) -> None:
        """Counts a pass, given the jobs of all live rows, ``[rows]``."""
        rows = np.bincount(jobs, minlength=self._counts.shape[1])
        self._counts[0] += rows
        self._counts[1] += rows > 0

    def count_prefill(self, job: Job, positions: int, layers: int = 0) -> None:
        """Counts positions of a job's prompt that were read, and what layers they took beyond the usual."""
        self._counts[3:5, job.index] += positions, layers

    def count_tokens(self, jobs: np.ndarray, work: np.ndarray | None) -> None:
        """Counts a token for each row.

        Args:
            jobs: The rows' jobs, ``[rows]``.
            work: Layers and heads that their recursions took, ``[2, rows]``; ``None`` without recursions.
        """
        self._counts[2] += np.bincount(jobs, minlength=self._counts.shape[1])
        if work is not None:
            np.add.at(self._counts[4], jobs, work[0])
            np.add.at(self._counts[5], jobs, work[1])
