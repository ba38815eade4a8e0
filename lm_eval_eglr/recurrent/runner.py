"""A decode step of a recurrent-depth model: every row's newest token is run to its end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.model.passes import PassOutput, Residuals
from lm_eval_eglr.decoding.model.runner import Batch
from lm_eval_eglr.decoding.numerics import statistics
from lm_eval_eglr.decoding.recursion import ActiveRecursions, Verdict
from lm_eval_eglr.recurrent.stack import RecurrentStack, Tokens

NEVER = RecursionConfig(entropy_threshold=float("inf"), max_recursions=0)


@dataclass(frozen=True, slots=True)
class RecurrentOutput(PassOutput):
    """What a pass returns.

    Attributes:
        made: Iterations of each row, divergence of its last one, whether it converged, and whether rounding
            decides that, ``[rows, 4]``.
    """

    made: Tensor = field(default_factory=lambda: torch.empty(0))


class RecurrentRunner:
    """Runs passes in which each row makes the iterations of its level, or as many as its exit rule wants."""

    def __init__(self, stack: RecurrentStack, cache: KVCache) -> None:
        self._stack = stack
        self._cache = cache

    def __call__(self, batch: Batch) -> RecurrentOutput:
        """Runs a pass."""
        cache, stack = self._cache, self._stack
        self._reserve(batch.live, batch.width)
        levels = batch.table.span[batch.first_cells]
        tokens = Tokens.causal(batch.tokens, batch.positions, batch.slots, levels)
        logprobs, made = stack.run(cache, tokens, np.arange(len(batch.slots)))
        return output_of(
            logprobs, stack.work(made), made.iterations, made.divergences, made.converged, made.near
        )

    def _reserve(self, rows: int, columns: int) -> None:
        if rows > self._cache.rows or columns > self._cache.length:
            self._cache.reserve(rows, columns)


def output_of(logprobs: Tensor, work: np.ndarray, *made: np.ndarray) -> RecurrentOutput:
    """Puts together what a pass returns."""
    numbers = torch.from_numpy(np.stack(made, -1)).to(logprobs)
    return RecurrentOutput(logprobs, logprobs.new_empty(0), Residuals(0), work, made=numbers)


class NoRecursions(ActiveRecursions):
    """What is in flight after a pass that ran every token to its end: nothing."""

    def __init__(self, rounding: float) -> None:
        """Log-probabilities move by ``rounding`` nats."""
        super().__init__(NEVER, rounding)

    def step(self, output: PassOutput, starting: int) -> Verdict:
        """What the pass has decided already."""
        assert isinstance(output, RecurrentOutput)
        found = statistics(output.logprobs)
        nothing = torch.zeros_like(found[0], dtype=torch.bool)
        made = output.made.T
        return Verdict.of(nothing, nothing[:0], found, found[0], made[:3], made[3] > 0)
