"""The distributions of one step, and which of them each cell draws from."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from lm_eval_eglr.decoding.recursion import Refinement


@dataclass(slots=True)
class Distributions:
    """The distributions of a step: the plain ones first, then one per gated row and distinct span."""

    logprobs: Tensor  # [entries, vocab]
    entropies: list[float]  # per entry, nats; NaN where the model gave no finite distribution
    index: dict[tuple[int, int], int]
    refinement: Refinement | None
    plain: int  # number of plain entries
    ties: set[tuple[int, int]] = field(default_factory=set)  # places whose draw rounding decides

    def entry(self, row: int, span: int) -> int:
        """Which distribution a cell draws from: its span's, or the plain one where it was not recursed."""
        return self.index.get((row, span), self.index[row, 0])

    def outcome(self, entry: int) -> tuple[int, float, bool]:
        """Iterations, last divergence (nats) and whether it converged, of one distribution."""
        item = entry - self.plain
        if item < 0 or self.refinement is None:
            return 0, 0.0, False
        refinement = self.refinement
        return refinement.iterations[item], refinement.divergences[item][-1], refinement.converged[item]

    def divergences(self, entry: int) -> list[float]:
        """KL(p_k ‖ p_{k−1}) of each iteration of one distribution, nats; none of a plain one."""
        item = entry - self.plain
        return [] if item < 0 or self.refinement is None else self.refinement.divergences[item]
