"""The gate, and the recursions that are in flight: one iteration per pass until they converge.

Source: Entropy-Gated Latent Recursion, arXiv 2606.16620. All of it is computed on the device; the host learns
with the drawn tokens which rows were gated and which recursions have ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.depth import UPDATE_RULES, Iterate, TopLayers
from lm_eval_eglr.decoding.model.passes import PassOutput
from lm_eval_eglr.decoding.numerics import on_device, statistics, together_on_device
from lm_eval_eglr.decoding.telemetry import COLUMN


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pass decided; tensors on the device, rows first, then recursions.

    Attributes:
        gated: Whether each row is uncertain enough to be recursed, ``[rows]``.
        ended: Whether each recursion has made its last iteration, ``[recursions]``.
        records: The first seven of :data:`~lm_eval_eglr.decoding.telemetry.FIELDS` of each distribution,
            ``[7, rows + recursions]``. The last three, which say how its recursion goes, are 0 of rows.
        leads: How far the likeliest token is ahead of the second, nats, ``[rows + recursions]``.
        near: Whether rounding decides the gate or an exit, ``[rows + recursions]``.
    """

    gated: Tensor
    ended: Tensor
    records: Tensor
    leads: Tensor
    near: Tensor

    @classmethod
    def of(
        cls, gated: Tensor, ended: Tensor, found: Tensor, plain: Tensor, recursed: Tensor, near: Tensor
    ) -> Verdict:
        """Puts one together.

        Args:
            gated: As above, and so are ``ended`` and ``near``.
            found: Statistics of each distribution, ``[4, rows + recursions]``.
            plain: Entropy of p_0 of each one's row, ``[rows + recursions]``.
            recursed: Iterations, divergence and whether it has converged of each, ``[3, rows + recursions]``.
        """
        return cls(gated, ended, torch.cat([plain[None], found[:3], recursed]), found[3], near)

    def field(self, name: str) -> Tensor:
        """One of the fields of :attr:`records`, ``[rows + recursions]``."""
        return self.records[COLUMN[name]]


class ActiveRecursions:
    """Applies the top layers to the rows that were gated until their rule of exit says that they have
    converged, K_max times at most.

    A recursion joins after the pass that gated it and leaves as soon as it has ended. It takes part in passes
    with whatever else there is to run, so that the weights are read once for all; none sees another, and what
    else is in a pass changes nothing but rounding.

    Attributes:
        slots: Cache row of each, ``[recursions]``; deepest first, as all that follow.
        spans: Span L of each.
        iterations: Number of the iteration that each is in, from 1 on.
        states: h_{k−1} of each, ``[recursions, dim]``.
    """

    def __init__(self, config: RecursionConfig, rounding: float, axis: TopLayers | None = None) -> None:
        """Has none yet.

        Args:
            config: Gate, rule of exit and number of iterations.
            rounding: How far a log-probability moves by rounding, nats.
            axis: What an iteration is; the top layers by the configured update rule by default.
        """
        self._config = config
        self._rounding = rounding
        self.axis = axis or TopLayers(UPDATE_RULES[config.update], config.strength)
        self.clear()

    def clear(self) -> None:
        """Forgets all of them."""
        self.slots = self.spans = self.iterations = np.zeros(0, np.int64)
        self.states = self._anchors = self._logprobs = torch.empty(0)
        self._entropies = self._near = torch.empty(0)

    def __len__(self) -> int:
        return len(self.slots)

    def inputs(self) -> Tensor:
        """z_k, what each one's first layer is applied to, ``[recursions, dim]``."""
        return self.axis.input(self._anchors, self.states)

    def outputs(self, applied: Tensor) -> Tensor:
        """h_k from f(z_k), both ``[recursions, dim]``."""
        return self.axis.output(self.states, applied.to(self.states.device))

    def step(self, output: PassOutput, starting: int) -> Verdict:
        """Gates the rows of a pass, its first ``starting`` ones, and ends an iteration of the others."""
        config, logprobs = self._config, output.logprobs
        found = statistics(logprobs) if output.statistics is None else output.statistics
        entropies = found[0]
        plain = entropies[:starting]
        above = plain.double() - config.entropy_threshold  # compared as the numbers that users see
        gated, near = above > 0, above.abs() <= 2 * self._rounding
        recursed = found.new_zeros(3, len(entropies))  # 0 of rows
        if not len(self):
            return Verdict.of(gated, gated[:0], found, entropies, recursed, near)
        refined = logprobs[starting:]
        rule, threshold = config.rule, config.threshold
        if rule is None:
            distances = torch.zeros_like(entropies[starting:])
            converged = torch.zeros_like(distances, dtype=torch.bool)
        else:
            now, before = Iterate(output.states, refined), Iterate(self.states, self._logprobs)
            distances = rule.distance(now, before).to(entropies)
            above = distances.double() - threshold
            converged = above < 0
            self._near = self._near | (above.abs() <= rule.rounding(threshold, self._rounding))
        self.states = output.states
        self._logprobs = refined

        made = on_device(self.iterations, logprobs.device)
        recursed[:, starting:] = torch.stack([made.to(entropies), distances, converged.to(entropies)])
        return Verdict.of(
            gated,
            converged | (made >= config.max_recursions),
            found,
            torch.cat([plain, self._entropies]),
            recursed,
            torch.cat([near, self._near]),
        )

    def update(
        self,
        ended: np.ndarray,
        output: PassOutput,
        verdict: Verdict,
        rows: np.ndarray,
        slots: np.ndarray,
        spans: np.ndarray,
    ) -> None:
        """Drops those that have ended and adds those that a pass has gated.

        Args:
            ended: Which have, ``[recursions]``.
            output: What the pass returned.
            verdict: What it decided.
            rows: Row of the pass that each new one continues, ``[new]``.
            slots: Its row of the cache, ``[new]``.
            spans: Its span, ``[new]``.
        """
        if not (len(rows) or ended.any()):
            if len(self):
                self.iterations = self.iterations + 1
                self._logprobs = self._logprobs.clone()  # the next pass may write where the last one did
            return
        kept, count = np.flatnonzero(~ended), len(self)
        all_spans = np.concatenate([self.spans[kept], spans])
        if not len(all_spans):
            self.clear()
            return
        order = np.argsort(-all_spans, kind="stable")
        self.spans = all_spans[order]
        self.slots = np.concatenate([self.slots[kept], slots])[order]
        self.iterations = np.concatenate([self.iterations[kept] + 1, np.ones(len(rows), np.int64)])[order]
        # Whether one goes on or begins, the pass has its distribution and what was decided about it.
        device, starting = output.logprobs.device, verdict.gated.shape[0]
        places = np.concatenate([kept, np.arange(count, count + len(rows))])[order]
        entries, index = together_on_device([np.concatenate([starting + kept, rows])[order], places], device)
        self._logprobs = output.logprobs.index_select(0, entries)
        self._entropies = verdict.field("entropy").index_select(0, entries)
        self._near = verdict.near.index_select(0, entries)
        held = [self._anchors, self.states]
        if len(rows):
            fresh = self.axis.begin(output.residuals, rows, spans)
            held = [torch.cat(each) for each in zip(held, fresh, strict=True)] if count else list(fresh)
        index = on_device(index, held[0].device)
        self._anchors, self.states = (values.index_select(0, index) for values in held)

    def move(self, slot_of: np.ndarray) -> None:
        """Follows rows that were moved: ``slot_of`` is the new slot of each by the old one."""
        self.slots = slot_of[self.slots]
