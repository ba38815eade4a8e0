"""The draws of a step: a token for every cell, and what is recorded of it.

Nothing here waits for the device: drawn tokens and flags are fetched by the host in one transfer,
:meth:`Drawn.fetch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList

from lm_eval_eglr.decoding.cells import CellTable, Written
from lm_eval_eglr.decoding.config import BranchingConfig
from lm_eval_eglr.decoding.forking import candidates
from lm_eval_eglr.decoding.model.passes import PassOutput
from lm_eval_eglr.decoding.numerics import on_device
from lm_eval_eglr.decoding.recursion import ActiveRecursions, Verdict
from lm_eval_eglr.decoding.sampling import BLOCK, draw_tokens, warpers
from lm_eval_eglr.decoding.telemetry import COLUMN

FAILED = -1  # drawn from a distribution that is not finite


@dataclass(slots=True)
class Draws:
    """The draws of a step: those from plain distributions, then those from recursed ones.

    Steps in which nothing happens share one.

    Attributes:
        cells: Lines of the table, ``[draws]``.
        entries: Which distribution of the pass each is from, ``[draws]``.
        plain: Number of draws from plain distributions.
        branching: Draws at which rollouts may fork, by their options.
        plan: How they are made, once the sampler has thought about it.
    """

    cells: np.ndarray
    entries: np.ndarray
    plain: int
    branching: Sequence[tuple[BranchingConfig, np.ndarray]] = ()
    plan: _Plan | None = None

    @classmethod
    def of(
        cls,
        cells: np.ndarray,
        slots: np.ndarray,
        spans: np.ndarray,
        starting: np.ndarray,
        recursions: ActiveRecursions,
        branching: Callable[[np.ndarray], Sequence[tuple[BranchingConfig, np.ndarray]]] | None = None,
    ) -> Draws:
        """What a pass gives draws to: all cells of rows that it runs, and those of each recursion.

        Args:
            cells: The live cells, ordered by slot.
            slots: Their slots.
            spans: Their spans.
            starting: Slots of the rows that the pass runs, ascending.
            recursions: Those in flight, whose distributions come after those of the rows.
            branching: Says which of some cells may fork; ``None`` if none may.
        """
        entry_of = np.full(1 + int(slots[-1]), -1)
        entry_of[starting] = np.arange(len(starting))
        entries = entry_of[slots]
        runs = entries >= 0
        plain, entries = cells[runs], entries[runs]
        may_fork = () if branching is None else branching(plain)
        if not len(recursions):
            return cls(plain, entries, len(plain), may_fork)
        recursion_of = np.full((len(entry_of), 1 + max(int(recursions.spans[0]), int(spans.max()))), -1)
        recursion_of[recursions.slots, recursions.spans] = np.arange(len(recursions))
        items = recursion_of[slots, spans]
        deep = np.flatnonzero(items >= 0)
        deep = deep[np.argsort(items[deep], kind="stable")]
        return cls(
            np.concatenate([plain, cells[deep]]),
            np.concatenate([entries, len(starting) + items[deep]]),
            len(plain),
            may_fork,
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a step made, on its way to the host.

    Attributes:
        flags: One number per row (is it gated?), then per recursion (has it ended?), then per draw (its
            token, or :data:`FAILED`), then what :func:`~lm_eval_eglr.decoding.forking.candidates` found.
        tokens: The drawn tokens, on the device, ``[draws]``; any token where drawing failed.
        written: When all this had been computed; ``None`` on a CPU.
    """

    flags: Tensor
    tokens: Tensor
    written: Written | None = None

    @classmethod
    def send(cls, flags: Tensor, tokens: Tensor, growth: int) -> Drawn:
        """Begins the only transfer of a step."""
        if not flags.is_cuda:
            return cls(flags, tokens)
        pinned = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True)
        pinned.copy_(flags, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(flags.device))
        return cls(pinned, tokens, Written(event, growth))

    def fetch(self) -> np.ndarray:
        """Waits for the device."""
        if self.written is not None:
            self.written.event.synchronize()
        return self.flags.cpu().numpy()


class Sampler:
    """Draws a token for every cell of a step, and writes what is recorded of it into the table.

    A recursion that has not ended draws too: what it draws is written where its next iteration writes, and
    the host leaves it alone. So no shape depends on what the device decides.
    """

    def __init__(
        self, table: CellTable, rounding: float, agree: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Draws for the cells of a table.

        Args:
            table: The table.
            rounding: How far a log-probability moves by rounding, nats.
            agree: Makes what is drawn the same on all processes that decode together, if there are others.
        """
        self._table = table
        self._rounding = rounding
        self._agree = agree

    def draw(self, draws: Draws, lengths: np.ndarray, output: PassOutput, verdict: Verdict) -> Drawn:
        """Draws for all cells, which have ``lengths`` tokens before, ``[draws]``."""
        table, logprobs = self._table, output.logprobs
        table.attach(logprobs.device, logprobs.dtype)
        table.prepare(draws.cells, lengths)
        if draws.plan is None:
            draws.plan = _Plan.of(draws, table, logprobs)
        plan = draws.plan
        columns = table.telemetry.shape[1]
        # Where in the table each draw's record goes, and where its uniform is.
        places = np.array([draws.cells * columns + lengths, draws.cells * BLOCK + lengths % BLOCK])
        records_at, uniforms_at = on_device(places, logprobs.device)
        tokens, ties, drawn = self._tokens(plan, logprobs, verdict.leads, uniforms_at)
        changed = gates = torch.zeros_like(drawn)
        if plan.deep is not None:
            table.plain.index_copy_(0, plan.cells[: draws.plain], tokens[: draws.plain])
            changed = (tokens != table.plain.index_select(0, plan.cells)).to(drawn)
            ties = ties | (plan.pick(verdict.near) & plan.deep)
        forks: list[Tensor] = []
        if draws.branching:
            forks, gates = candidates(draws.branching, logprobs, plan.entries)
        chosen = logprobs[plan.entries, tokens]
        of_draws = torch.stack([chosen, drawn, ties.to(drawn), changed, gates])
        records = torch.cat([plan.pick(verdict.records), of_draws])  # [fields, draws]
        table.telemetry.view(-1, len(records)).index_copy_(0, records_at, records.T.contiguous())
        flags = tokens.masked_fill(records[COLUMN["refined_entropy"]].isnan(), FAILED)
        flags = torch.cat([verdict.gated, verdict.ended, flags, *(each.flatten() for each in forks)])
        return Drawn.send(flags if self._agree is None else self._agree(flags), tokens, table.growth)

    def _tokens(
        self, plan: _Plan, logprobs: Tensor, leads: Tensor, uniforms_at: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Token, whether rounding decides it, and its log-probability when it was drawn, ``[draws]`` each."""
        made = [self._group(group, plan, logprobs, leads, uniforms_at) for group in plan.groups]
        if len(made) == 1:
            return made[0]
        tokens = torch.zeros_like(plan.cells)
        ties = torch.zeros_like(plan.cells, dtype=torch.bool)
        drawn = logprobs.new_zeros(len(plan.cells))
        for group, (some_tokens, some_ties, some_drawn) in zip(plan.groups, made, strict=True):
            tokens[group.places], ties[group.places] = some_tokens, some_ties
            drawn[group.places] = some_drawn
        return tokens, ties, drawn

    def _group(
        self, group: _Group, plan: _Plan, logprobs: Tensor, leads: Tensor, uniforms_at: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the draws of one group."""
        rows = logprobs if group.rows is None else logprobs.index_select(0, group.rows)
        if group.warp is None:
            tokens = group.gather(rows.argmax(-1))
            entries = plan.entries[group.places]
            return tokens, leads[entries] <= 2 * self._rounding, torch.zeros_like(leads[entries])
        uniforms = self._table.uniforms.view(-1).index_select(0, uniforms_at[group.places])
        tokens, margins, drawn = draw_tokens(rows, group.temperatures, group.spread(uniforms), group.warp)
        ties = margins <= self._rounding
        return group.gather(tokens), group.gather(ties), group.gather(drawn)


@dataclass(frozen=True, slots=True)
class _Group:
    """Draws that are made alike, laid out by the tempered distribution that they are from, computed once.

    Attributes:
        places: Which draws they are.
        rows: Distribution of each line, ``[lines]``; ``None`` where they are all, in their order.
        warp: Truncation; ``None`` of greedy draws.
        temperatures: Of each line.
        line: Which line each draw is from, ``[draws]``; ``None`` where each has one of its own.
        rank: Its rank among those of its line.
        most: Most draws of a line.
    """

    places: slice | Tensor
    rows: Tensor | None
    warp: LogitsProcessorList | None
    temperatures: Tensor
    line: Tensor | None
    rank: Tensor | None
    most: int

    @classmethod
    def of(
        cls,
        places: np.ndarray,
        draws: Draws,
        temperatures: np.ndarray,
        warp: LogitsProcessorList | None,
        logprobs: Tensor,
        same: bool,
    ) -> _Group:
        """Lays out the draws at ``places``; ``same`` says whether draw i is from distribution i."""
        device = logprobs.device
        entries, heat = draws.entries[places], temperatures[places]
        line = rank = None
        most = 1
        if not same and (entries[1:] <= entries[:-1]).any():
            order = np.lexsort((heat, entries))
            ordered = entries[order], heat[order]
            begins = np.ones(len(order), bool)
            begins[1:] = (ordered[0][1:] != ordered[0][:-1]) | (ordered[1][1:] != ordered[1][:-1])
            first = np.flatnonzero(begins)
            counts = np.diff(first, append=len(order))
            group, within = np.empty_like(order), np.empty_like(order)
            group[order] = np.repeat(np.arange(len(first)), counts)
            within[order] = np.arange(len(order)) - np.repeat(first, counts)
            entries, heat = ordered[0][first], ordered[1][first]
            line, rank, most = on_device(group, device), on_device(within, device), int(counts.max())
        everyone = len(entries) == len(logprobs) and (same or (entries == np.arange(len(entries))).all())
        return cls(
            slice(None) if len(places) == len(draws.cells) else on_device(places, device),
            None if everyone else on_device(entries, device),
            warp,
            on_device(heat, device).to(logprobs.dtype),
            line,
            rank,
            most,
        )

    def spread(self, values: Tensor) -> Tensor:
        """``[draws]`` to ``[lines, most]``."""
        if self.line is None:
            return values[:, None]
        spread = values.new_zeros(len(self.temperatures), self.most)
        spread[self.line, self.rank] = values
        return spread

    def gather(self, values: Tensor) -> Tensor:
        """``[lines, most]``, or ``[lines]`` where all draws of a line are the same, to ``[draws]``."""
        if values.dim() == 1:
            return values if self.line is None else values[self.line]
        return values[:, 0] if self.line is None else values[self.line, self.rank]


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the draws of a step are made: what of it does not change from step to step.

    Attributes:
        cells: Lines of the table, on the device.
        entries: Distribution of each draw, on the device.
        same: Whether draw i is from distribution i.
        deep: Whether each draw's cell has a span; ``None`` where none has.
        groups: The draws that are made alike.
    """

    cells: Tensor
    entries: Tensor
    same: bool
    deep: Tensor | None
    groups: list[_Group]

    @classmethod
    def of(cls, draws: Draws, table: CellTable, logprobs: Tensor) -> _Plan:
        """Plans the draws from ``logprobs``."""
        cells, entries = on_device(np.array([draws.cells, draws.entries]), logprobs.device)
        # Draws are in the order of the distributions, each of which has one at least.
        same = len(draws.entries) == len(logprobs)
        spans = table.span[draws.cells] > 0
        deep = on_device(spans, logprobs.device) if spans.any() else None
        temperatures, truncations = table.temperature[draws.cells], table.truncation[draws.cells]
        kinds = np.where(temperatures == 0, -1, truncations)
        groups = []
        for kind in range(-1, len(table.truncations)):
            places = np.flatnonzero(kinds == kind)
            if len(places):
                warp = None if kind < 0 else warpers(table.truncations[kind])
                groups.append(_Group.of(places, draws, temperatures, warp, logprobs, same))
        return cls(cells, entries, same, deep, groups)

    def pick(self, values: Tensor) -> Tensor:
        """What each draw has of its distribution, ``[..., rows]`` to ``[..., draws]``."""
        return values if self.same else values.index_select(-1, self.entries)
