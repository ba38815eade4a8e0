"""What units of work cost in a model, read off its pools, and what plain samples would have cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from eglr_selectors.parsed import ParsedPool
from eglr_selectors.pool import Rollout


def pool_flops(parsed: ParsedPool) -> float:
    """Returns what decoding the pool cost; NaN if that is not known."""
    cost = parsed.pool.cost
    return cost.flops if cost is not None and cost.flops > 0 else math.nan


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """What the counted units of work cost in one model.

    Attributes:
        layer_token: Floating-point operations of one layer on one token.
        head_evaluation: Of one final norm with the unembedding.
    """

    layer_token: float
    head_evaluation: float

    def unshared(self, rollout: Rollout) -> float:
        """What a rollout costs decoded by itself, its prompt left out; NaN if its work was not counted."""
        work = rollout.telemetry
        if work is None or not work.head_evaluations:
            return math.nan
        layers = work.plain_layer_tokens + work.recursion_layer_tokens
        return layers * self.layer_token + work.head_evaluations * self.head_evaluation


def unit_costs(pools: Iterable[ParsedPool]) -> UnitCosts | None:
    """Returns what a layer application and a head evaluation cost; ``None`` where the pools do not tell.

    Pools store it. Where none does, as in stores of older versions, it is solved for.

    Args:
        pools: Of one model.
    """
    pools = list(pools)
    for parsed in pools:
        cost = parsed.pool.cost
        if cost is not None and cost.flops_per_layer_token > 0:
            return UnitCosts(cost.flops_per_layer_token, cost.flops_per_head_evaluation)
    return _solved_unit_costs(pools)


def _solved_unit_costs(pools: Iterable[ParsedPool]) -> UnitCosts | None:
    """The unit costs that the pools' counts and costs imply; only for pools that do not store them.

    A pool knows two sums in which layers and head stand in different proportion (this project): what it
    cost, shared, and what plain sampling of its rollouts would have cost, unshared. Their solution is exact.
    """
    import numpy as np  # here: the grader alone needs none, and its import changes the host's warning filters

    shared, plain = np.zeros(3), np.zeros(3)  # layer tokens, head evaluations, operations
    for parsed in pools:
        cost = parsed.pool.cost
        if cost is None or not cost.flops:
            continue
        tokens = sum(len(rollout.tokens) for rollout in parsed)
        layer_tokens = sum(r.telemetry.plain_layer_tokens for r in parsed if r.telemetry is not None)
        if not tokens or tokens != cost.tokens or layer_tokens % tokens:
            continue
        depth = layer_tokens // tokens
        layers = cost.plain_layer_tokens + cost.recursion_layer_tokens
        shared += (layers, cost.head_evaluations, cost.flops)
        plain += (depth * (max(0, cost.prompt_tokens - 1) + tokens), tokens, cost.plain_flops)
    equations = np.array([shared, plain])
    scale = np.abs(equations[:, :2]).max(initial=1.0)
    if abs(np.linalg.det(equations[:, :2] / scale)) < 1e-12:
        return None
    layer_token, head_evaluation = np.linalg.solve(equations[:, :2], equations[:, 2])
    if layer_token <= 0 or head_evaluation < 0:
        return None
    return UnitCosts(float(layer_token), float(head_evaluation))


def shared_plain_flops(parsed: ParsedPool) -> float:
    """Returns what plain samples would have cost that share as many prefixes (this project).

    That is the pool's own work without its recursion: one row for each prefix that rollouts have in common,
    through all layers once. NaN where the pool's counts and costs do not imply it.
    """
    cost = parsed.pool.cost
    if cost is None or not cost.flops or not cost.rows:
        return math.nan
    if not cost.recursion_layer_tokens and cost.head_evaluations == cost.rows:
        return cost.flops
    units = unit_costs([parsed])
    if units is None:
        return math.nan
    return cost.plain_layer_tokens * units.layer_token + cost.rows * units.head_evaluation
