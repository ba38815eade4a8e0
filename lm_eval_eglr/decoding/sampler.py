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

from lm_eval_eglr.decoding.cells import CellTable
from lm_eval_eglr.decoding.config import BranchingConfig
from lm_eval_eglr.decoding.forking import candidates
from lm_eval_eglr.decoding.model.passes import PassOutput
from lm_eval_eglr.decoding.numerics import statistics
from lm_eval_eglr.decoding.recursion import ActiveRecursions, Verdict
from lm_eval_eglr.decoding.sampling import BLOCK, draw_tokens, warpers

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
        branching: Callable[[np.ndarray], Sequence[tuple[BranchingConfig, np.ndarray]]],
    ) -> Draws:
        """What a pass gives draws to: all cells of rows that it runs, and those of each recursion.

        Args:
            cells: The live cells, ordered by slot.
            slots: Their slots.
            spans: Their spans.
            starting: Slots of the rows that the pass runs, ascending.
            recursions: Those in flight, whose distributions come after those of the rows.
            branching: Which of some cells may fork.
        """
        place = np.searchsorted(starting, slots).clip(max=max(0, len(starting) - 1))
        runs = starting[place] == slots if len(starting) else np.zeros(len(slots), bool)
        plain, entries = cells[runs], place[runs]
        if not len(recursions):
            return cls(plain, entries, len(plain), branching(plain))
        width = 1 + max(int(recursions.spans.max()), int(spans.max()))
        keys = recursions.slots * width + recursions.spans
        order = np.argsort(keys)
        wanted = slots * width + spans
        place = np.searchsorted(keys[order], wanted).clip(max=len(keys) - 1)
        deep = keys[order][place] == wanted
        items = order[place[deep]]
        by_item = np.argsort(items, kind="stable")
        return cls(
            np.concatenate([plain, cells[deep][by_item]]),
            np.concatenate([entries, len(starting) + items[by_item]]),
            len(plain),
            branching(plain),
        )


@dataclass(slots=True)
class Drawn:
    """What a step made, still on the device.

    Attributes:
        flags: One number per row (is it gated?), then per recursion (has it ended?), then per draw (its
            token, or :data:`FAILED`), then what :func:`~lm_eval_eglr.decoding.forking.candidates` found.
    """

    flags: Tensor

    def fetch(self, agree: Callable[[Tensor], Tensor] | None = None) -> np.ndarray:
        """Waits for the device: the only transfer of a step.

        Args:
            agree: Makes them the same on all processes that decode together, if there are others.
        """
        flags = self.flags if agree is None else agree(self.flags)
        return flags.cpu().numpy()


class Sampler:
    """Draws a token for every cell of a step, and writes what is recorded of it into the table.

    A recursion that has not ended draws too: what it draws is written where its next iteration writes, and
    the host leaves it alone. So no shape depends on what the device decides.
    """

    def __init__(self, table: CellTable, rounding: float) -> None:
        """Draws for cells of ``table``; log-probabilities move by ``rounding`` nats."""
        self._table = table
        self._rounding = rounding

    def draw(self, draws: Draws, output: PassOutput, verdict: Verdict) -> Drawn:
        """Draws for all cells."""
        table, logprobs = self._table, output.logprobs
        table.attach(logprobs.device, logprobs.dtype)
        table.prepare(draws.cells)
        if draws.plan is None:
            draws.plan = _Plan.of(draws, table, logprobs)
        plan = draws.plan
        columns = torch.from_numpy(table.length[draws.cells]).to(logprobs.device, non_blocking=True)
        confidences, certainties, leads = statistics(logprobs)
        tokens, ties, drawn = self._tokens(plan, logprobs, leads, columns)
        changed = torch.zeros_like(drawn)
        if draws.plain < len(draws.cells):
            changed[draws.plain :] = tokens[draws.plain :] != table.plain[plan.cells[draws.plain :]]
        if plan.deep is not None:
            table.plain[plan.cells[: draws.plain]] = tokens[: draws.plain]
            ties = ties | (plan.pick(verdict.near) & plan.deep)
        found: list[Tensor] = []
        gates = changed
        if draws.branching:
            found, gates = candidates(draws.branching, logprobs, plan.entries)
        entropies = plan.pick(verdict.entropies)
        table.telemetry[plan.cells, columns] = torch.stack(
            [
                plan.pick(verdict.plain_entropies),
                entropies,
                plan.pick(confidences),
                plan.pick(certainties),
                plan.pick(verdict.iterations),
                plan.pick(verdict.divergences),
                plan.pick(verdict.converged),
                logprobs[plan.entries, tokens],
                drawn,
                ties.to(drawn),
                changed,
                gates,
            ],
            -1,
        )
        tokens = tokens.masked_fill(entropies.isnan(), FAILED)
        return Drawn(torch.cat([verdict.gated, verdict.ended, tokens, *(each.flatten() for each in found)]))

    def _tokens(
        self, plan: _Plan, logprobs: Tensor, leads: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Token, whether rounding decides it, and its log-probability when it was drawn, ``[draws]`` each."""
        made = [self._group(group, plan, logprobs, leads, columns) for group in plan.groups]
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
        self, group: _Group, plan: _Plan, logprobs: Tensor, leads: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the draws of one group."""
        rows = logprobs if group.rows is None else logprobs.index_select(0, group.rows)
        if group.warp is None:
            tokens = group.gather(rows.argmax(-1))
            entries = plan.entries[group.places]
            return tokens, leads[entries] <= 2 * self._rounding, torch.zeros_like(leads[entries])
        cells = plan.cells[group.places]
        uniforms = self._table.uniforms[cells, columns[group.places] % BLOCK]
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
    ) -> _Group:
        """Lays out the draws at ``places``."""
        device = logprobs.device

        def on_device(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(device, non_blocking=True)

        entries, heat = draws.entries[places], temperatures[places]
        line = rank = None
        most = 1
        if len(entries) > 1 and not (entries[1:] > entries[:-1]).all():
            pairs = np.stack([entries, heat], -1)
            distinct, group = np.unique(pairs, axis=0, return_inverse=True)
            group = group.reshape(-1)
            counts = np.bincount(group)
            order = np.argsort(group, kind="stable")
            within = np.empty_like(group)
            within[order] = np.arange(len(group)) - (np.cumsum(counts) - counts)[group[order]]
            entries, heat = distinct[:, 0].astype(np.int64), distinct[:, 1]
            line, rank, most = on_device(group), on_device(within), int(counts.max())
        everyone = len(entries) == len(logprobs) and bool((entries == np.arange(len(entries))).all())
        return cls(
            slice(None) if len(places) == len(draws.cells) else on_device(places),
            None if everyone else on_device(entries),
            warp,
            on_device(heat).to(logprobs.dtype),
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
        cells, entries = torch.from_numpy(np.stack([draws.cells, draws.entries])).to(
            logprobs.device, non_blocking=True
        )
        same = len(draws.entries) == len(logprobs) and bool((draws.entries == np.arange(len(logprobs))).all())
        spans = table.span[draws.cells] > 0
        deep = torch.from_numpy(spans).to(logprobs.device, non_blocking=True) if spans.any() else None
        temperatures, truncations = table.temperature[draws.cells], table.truncation[draws.cells]
        greedy = temperatures == 0
        kinds = np.where(greedy, -1, truncations)
        groups = [
            _Group.of(
                np.flatnonzero(kinds == kind),
                draws,
                temperatures,
                None if kind < 0 else warpers(table.truncations[kind]),
                logprobs,
            )
            for kind in np.unique(kinds).tolist()
        ]
        return cls(cells, entries, same, deep, groups)

    def pick(self, values: Tensor) -> Tensor:
        """What each draw has of its distribution, ``[rows]`` to ``[draws]``."""
        return values if self.same else values[self.entries]
