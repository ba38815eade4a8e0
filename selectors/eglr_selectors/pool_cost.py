"""What decoding a pool cost, in counted work and in operations."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PoolCost:
    """What decoding a whole pool cost, with work that rollouts shared counted once.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        tokens: Tokens over all rollouts, as if nothing had been shared.
        rows: Row-steps that were really run; ``tokens / rows`` is the sharing factor.
        plain_layer_tokens: Layer applications of the plain pass, prefill included.
        recursion_layer_tokens: Layer applications of the recursion.
        head_evaluations: Final norm and unembedding evaluations.
        flops: Estimated floating-point operations, from the parameter counts of layers and head.
        plain_flops: The same for plain sampling of these rollouts: one prefill, nothing else shared, no
            recursion. ``flops / plain_flops`` is what the grid costs over temperature alone.
        flops_per_layer_token: Operations of one layer application; 0 if not known, as in older pools.
        flops_per_head_evaluation: Operations of one final norm and unembedding; 0 if not known.
    """

    prompt_tokens: int = 0
    tokens: int = 0
    rows: int = 0
    plain_layer_tokens: int = 0
    recursion_layer_tokens: int = 0
    head_evaluations: int = 0
    flops: float = 0.0
    plain_flops: float = 0.0
    flops_per_layer_token: float = 0.0
    flops_per_head_evaluation: float = 0.0

    def __add__(self, other: PoolCost) -> PoolCost:
        """The cost of two pools of one model; what a unit of work costs stays, and is 0 where they differ."""
        per_unit = ("flops_per_layer_token", "flops_per_head_evaluation")
        values: dict[str, Any] = {}
        for each in dataclasses.fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            values[each.name] = (
                mine + theirs if each.name not in per_unit else mine if mine == theirs else 0.0
            )
        return PoolCost(**values)
