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
from lm_eval_eglr.decoding.numerics import Statistics, on_device, statistics


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pass decided; tensors on the device, rows first, then recursions.

    Attributes:
        gated: Whether each row is uncertain enough to be recursed, ``[rows]``.
        ended: Whether each recursion has made its last iteration, ``[recursions]``.
        statistics: Of each distribution, ``[rows + recursions]``.
        plain_entropies: Of p_0 of each one's row, nats.
        iterations: Iterations so far; 0 of rows.
        divergences: Distance of the last iteration by the rule of exit; 0 of rows, and without a rule.
        converged: Whether it fell below the threshold.
        near: Whether rounding decides the gate or an exit.
    """

    gated: Tensor
    ended: Tensor
    statistics: Statistics
    plain_entropies: Tensor
    iterations: Tensor
    divergences: Tensor
    converged: Tensor
    near: Tensor


class ActiveRecursions:
    """Applies the top layers to the rows that were gated until their rule of exit says that they have
    converged, K_max times at most.

    A recursion joins after the pass that gated it and leaves as soon as it has ended. It takes part in passes
    with whatever else there is to run, so that the weights are read once for all; none sees another, and what
    else is in a pass changes nothing but rounding.

    Attributes:
        slots: Cache row of each, ``[recursions]``; deepest first, as all that follow.
        spans: Span L of each.
        iterations: Iterations that each has made.
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
        found = output.statistics or statistics(logprobs)
        entropies = found.entropy
        plain = entropies[:starting].double()  # compared as the numbers that users see
        gated = plain > config.entropy_threshold
        near = (plain - config.entropy_threshold).abs() <= 2 * self._rounding
        if not len(self):
            nothing = torch.zeros_like(entropies)
            return Verdict(gated, gated[:0], found, entropies, nothing, nothing, nothing, near)
        recursed = logprobs[starting:]
        rule, threshold = config.rule, config.threshold
        if rule is None:
            distances = torch.zeros_like(entropies[starting:])
            converged = torch.zeros_like(distances, dtype=torch.bool)
        else:
            now, before = Iterate(output.states, recursed), Iterate(self.states, self._logprobs)
            distances = rule.distance(now, before).to(entropies.device)
            precise = distances.double()
            converged = precise < threshold
            reach = rule.rounding(threshold, self._rounding)
            self._near = self._near | ((precise - threshold).abs() <= reach)
        self.iterations = self.iterations + 1
        self.states = output.states
        self._logprobs = recursed

        made = on_device(self.iterations, logprobs.device)
        of_all = entropies.new_zeros(3, len(entropies))
        of_all[:, starting:] = torch.stack([made.to(distances), distances, converged.to(distances)])
        iterations, divergences, ends = of_all.unbind()
        return Verdict(
            gated,
            converged | (made >= config.max_recursions),
            found,
            torch.cat([entropies[:starting], self._entropies]),
            iterations,
            divergences,
            ends,
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
        self.iterations = np.concatenate([self.iterations[kept], np.zeros(len(rows), np.int64)])[order]
        # Whether one goes on or begins, the pass has its distribution and what was decided about it.
        device = output.logprobs.device
        entries = on_device(np.concatenate([len(verdict.gated) + kept, rows])[order], device)
        self._logprobs = output.logprobs.index_select(0, entries)
        self._entropies = verdict.plain_entropies.index_select(0, entries)
        self._near = verdict.near.index_select(0, entries)
        held = [self._anchors, self.states]
        if len(rows):
            fresh = self.axis.begin(output.residuals, rows, spans)
            held = [torch.cat(each) for each in zip(held, fresh, strict=True)] if count else list(fresh)
        chosen = np.concatenate([kept, count + np.arange(len(rows))])[order]
        if not np.array_equal(chosen, np.arange(count + len(rows))):
            index = on_device(chosen, device)
            held = [values.index_select(0, index.to(values.device)) for values in held]
        self._anchors, self.states = held

    def move(self, slot_of: np.ndarray) -> None:
        """Follows rows that were moved: ``slot_of`` is the new slot of each by the old one."""
        self.slots = slot_of[self.slots]
