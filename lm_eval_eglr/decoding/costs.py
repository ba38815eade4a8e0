"""What decoding costs: work counted by the engine, as floating-point operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eglr_selectors.pool import PoolCost


@dataclass(frozen=True, slots=True)
class CostModel:
    """The sizes of a model that decide what a token costs.

    Attributes:
        depth: Number of decoder layers.
        layer_parameters: Parameters of one layer that a token goes through.
        head_parameters: Those of the final norm and the unembedding.
    """

    depth: int
    layer_parameters: float
    head_parameters: float

    def flops(self, layer_tokens: int, head_evaluations: int) -> float:
        """Two operations per parameter and application; attention over the context is left out."""
        return 2.0 * (layer_tokens * self.layer_parameters + head_evaluations * self.head_parameters)

    def pool_cost(
        self,
        *,
        prompt_tokens: int,
        tokens: int,
        rows: int,
        plain_layer_tokens: int,
        recursion_layer_tokens: int,
        head_evaluations: int,
    ) -> PoolCost:
        """Completes the counts of a pool by their operations; see :class:`PoolCost` for the terms."""
        layer_tokens = plain_layer_tokens + recursion_layer_tokens
        return PoolCost(
            prompt_tokens=prompt_tokens,
            tokens=tokens,
            rows=rows,
            plain_layer_tokens=plain_layer_tokens,
            recursion_layer_tokens=recursion_layer_tokens,
            head_evaluations=head_evaluations,
            flops=self.flops(layer_tokens, head_evaluations),
            plain_flops=self.flops(self.depth * (prompt_tokens - 1 + tokens), tokens),
            flops_per_layer_token=self.flops(1, 0),
            flops_per_head_evaluation=self.flops(0, 1),
        )

    def joined(self, parts: Sequence[PoolCost], tokens: int) -> PoolCost:
        """The cost of a pool that was decoded in several rounds; work that was done twice counts twice.

        Args:
            parts: Of the rounds; the first one began at the prompt.
            tokens: Tokens over all rollouts, as if nothing had been shared.
        """
        return self.pool_cost(
            prompt_tokens=parts[0].prompt_tokens,
            tokens=tokens,
            rows=sum(part.rows for part in parts),
            plain_layer_tokens=sum(part.plain_layer_tokens for part in parts),
            recursion_layer_tokens=sum(part.recursion_layer_tokens for part in parts),
            head_evaluations=sum(part.head_evaluations for part in parts),
        )
