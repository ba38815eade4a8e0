"""What selections cost: rollouts, tokens, floating-point operations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from eglr_selectors.parsed import ParsedPool
from eglr_selectors.pool import Rollout
from eglr_selectors.selection import Selection


@dataclass(frozen=True, slots=True)
class Cost:
    """Means over problems.

    Attributes:
        rollouts: Rollouts looked at.
        tokens: Their tokens; NaN if a pool does not know them.
        flops: Floating-point operations of decoding them, shared work counted once; NaN where a pool
            has no cost or only a part of it was looked at: sharing makes a part's cost unknown.
    """

    rollouts: float
    tokens: float
    flops: float


def cost_of(pools: Sequence[ParsedPool], selections: Iterable[Selection]) -> Cost:
    """Returns the mean cost of one selection from each pool; NaN in all columns if there is none.

    Raises:
        ValueError: If there is not one selection per pool.
    """
    pairs = list(zip(pools, selections, strict=True))
    return Cost(
        _mean([float(selection.rollouts) for _, selection in pairs]),
        _mean([math.nan if each.tokens is None else float(each.tokens) for _, each in pairs]),
        _mean([_flops(parsed, selection) for parsed, selection in pairs]),
    )


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


def _flops(parsed: ParsedPool, selection: Selection) -> float:
    return pool_flops(parsed) if selection.rollouts == len(parsed) else math.nan


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
