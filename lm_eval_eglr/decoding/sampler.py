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
from lm_eval_eglr.decoding.numerics import on_device, together_on_device
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
        assert plan.back is not None
        tokens, ties, drawn = (torch.cat(each).index_select(0, plan.back) for each in zip(*made, strict=True))
        return tokens, ties, drawn

    def _group(
        self, group: _Group, plan: _Plan, logprobs: Tensor, leads: Tensor, uniforms_at: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the draws of one group."""
        rows = logprobs if group.rows is None else logprobs.index_select(0, group.rows)
        if group.warp is None:
            tokens = group.gather(rows.argmax(-1))
            entries = group.of_these(plan.entries)
            return tokens, leads[entries] <= 2 * self._rounding, torch.zeros_like(leads[entries])
        uniforms = self._table.uniforms.view(-1).index_select(0, group.of_these(uniforms_at))
        tokens, margins, drawn = draw_tokens(rows, group.temperatures, group.spread(uniforms), group.warp)
        ties = margins <= self._rounding
        return group.gather(tokens), group.gather(ties), group.gather(drawn)


@dataclass(frozen=True, slots=True)
class _Group:
    """Draws that are made alike, laid out by the tempered distribution that they are from, computed once.

    Attributes:
        places: Which draws they are; ``None`` for all.
        rows: Distribution of each line, ``[lines]``; ``None`` where they are all, in their order.
        temperatures: Of each line.
        line: Which line each draw is from, ``[draws]``; ``None`` where each has one of its own.
        rank: Its rank among those of its line.
        warp: Truncation; ``None`` of greedy draws.
        most: Most draws of a line.
    """

    places: Tensor | None
    rows: Tensor | None
    temperatures: Tensor
    line: Tensor | None
    rank: Tensor | None
    warp: LogitsProcessorList | None
    most: int

    def of_these(self, values: Tensor) -> Tensor:
        """What of all draws' values is theirs."""
        return values if self.places is None else values[self.places]

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
        back: Where each draw is among those of all groups, one after the other; ``None`` of a single group.
    """

    cells: Tensor
    entries: Tensor
    same: bool
    deep: Tensor | None
    groups: list[_Group]
    back: Tensor | None

    @classmethod
    def of(cls, draws: Draws, table: CellTable, logprobs: Tensor) -> _Plan:
        """Plans the draws from ``logprobs``; all that the device has to know goes there at once."""
        # Draws are in the order of the distributions, each of which has one at least.
        same = len(draws.entries) == len(logprobs)
        spans = table.span[draws.cells] > 0
        temperatures, truncations = table.temperature[draws.cells], table.truncation[draws.cells]
        temperatures = temperatures.astype(np.float32 if logprobs.dtype == torch.float32 else np.float64)
        kinds = np.where(temperatures == 0, -1, truncations)
        made: list[tuple[LogitsProcessorList | None, int]] = []
        arrays = [draws.cells, draws.entries, spans if spans.any() else None]
        chosen = [np.flatnonzero(kinds == kind) for kind in range(-1, len(table.truncations))]
        several = sum(len(places) > 0 for places in chosen) > 1
        arrays.append(np.argsort(np.concatenate(chosen)) if several else None)
        for kind, places in enumerate(chosen, -1):
            if len(places):
                layout, most = _lay_out(draws.entries[places], temperatures[places], len(logprobs), same)
                made.append((None if kind < 0 else warpers(table.truncations[kind]), most))
                arrays += [places if several else None, *layout]
        sent = iter(together_on_device([each for each in arrays if each is not None], logprobs.device))
        cells, entries, deep, back, *rest = [None if each is None else next(sent) for each in arrays]
        assert cells is not None
        assert entries is not None
        groups = []
        for number, (warp, most) in enumerate(made):
            places_sent, rows, heat, line, rank = rest[5 * number : 5 * number + 5]
            assert heat is not None
            groups.append(_Group(places_sent, rows, heat, line, rank, warp, most))
        return cls(cells, entries, same, deep, groups, back)

    def pick(self, values: Tensor) -> Tensor:
        """What each draw has of its distribution, ``[..., rows]`` to ``[..., draws]``."""
        return values if self.same else values.index_select(-1, self.entries)


def _lay_out(
    entries: np.ndarray, temperatures: np.ndarray, count: int, same: bool
) -> tuple[list[np.ndarray | None], int]:
    """Lays out draws by their tempered distributions.

    Args:
        entries: Distribution of each draw, ``[draws]``.
        temperatures: Of each draw.
        count: Number of distributions.
        same: Whether draw i is from distribution i.

    Returns:
        :attr:`_Group.rows` and the three that follow it; and :attr:`_Group.most`.
    """
    line = rank = None
    most = 1
    if not same and (entries[1:] <= entries[:-1]).any():
        order = np.lexsort((temperatures, entries))
        ordered = entries[order], temperatures[order]
        begins = np.ones(len(order), bool)
        begins[1:] = (ordered[0][1:] != ordered[0][:-1]) | (ordered[1][1:] != ordered[1][:-1])
        first = np.flatnonzero(begins)
        counts = np.diff(first, append=len(order))
        line, rank = np.empty_like(order), np.empty_like(order)
        line[order] = np.repeat(np.arange(len(first)), counts)
        rank[order] = np.arange(len(order)) - np.repeat(first, counts)
        entries, temperatures, most = ordered[0][first], ordered[1][first], int(counts.max())
    everyone = len(entries) == count and (same or bool((entries == np.arange(count)).all()))
    return [None if everyone else entries, temperatures, line, rank], most
