"""The telemetry of a token: what is recorded of its distribution, and what a rollout's sums up to.

A record is a line of :data:`FIELDS`, written on the device and read when its rollout ends.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from eglr_selectors.pool import Telemetry

from lm_eval_eglr.decoding.depth import DepthAxis

FIELDS = (
    "entropy",
    "refined_entropy",
    "confidence",
    "self_certainty",
    "iterations",
    "divergence",
    "converged",
    "logprob",
    "sampling_logprob",
    "tie",
    "changed",
    "branch_entropy",
)
"""What a record holds, see :class:`eglr_selectors.pool.Telemetry`; flags are 0 and 1."""

COLUMN = {name: number for number, name in enumerate(FIELDS)}


def telemetry_of(
    records: np.ndarray, *, axis: DepthAxis, level: int, depth: int, trace: bool, branches: bool
) -> Telemetry:
    """Sums up a rollout.

    Args:
        records: One line of :data:`FIELDS` per token, ``[tokens, fields]``.
        axis: What levels of depth are.
        level: That of the rollout.
        depth: Layers that every token runs through once.
        trace: Whether the values of each token are kept.
        branches: Whether the rollout may branch; then they are kept anyway, to go on from it.
    """
    count = len(records)
    lines = np.ascontiguousarray(records.T, np.float64)
    columns = dict(zip(FIELDS, lines, strict=True))
    totals = dict(zip(FIELDS, lines.sum(1).tolist(), strict=True))

    def mean(name: str) -> float:
        return math.fsum(columns[name].tolist()) / count if count else math.nan

    def total(name: str) -> int:
        return int(totals[name])  # of whole numbers, whose sum is exact

    iterations = total("iterations")
    layers, heads = axis.work(level, iterations, count)
    gated = int(np.count_nonzero(columns["iterations"])) if axis.shares_rows else 0
    telemetry = Telemetry(
        mean_entropy=mean("entropy"),
        mean_logprob=mean("logprob"),
        mean_confidence=mean("confidence"),
        gated_tokens=gated,
        recursions=iterations,
        converged_tokens=total("converged"),
        plain_layer_tokens=depth * count,
        recursion_layer_tokens=layers,
        head_evaluations=count + heads,
        ties=total("tie"),
        changed_tokens=total("changed"),
        mean_self_certainty=mean("self_certainty"),
    )
    if not (trace or (branches and count)):
        return telemetry

    def values(name: str) -> tuple[float, ...]:
        return tuple(columns[name].tolist())

    def counts(name: str) -> tuple[int, ...]:
        return tuple(columns[name].astype(np.int64).tolist())

    return replace(
        telemetry,
        token_confidences=values("confidence"),
        token_logprobs=values("logprob"),
        token_sampling_logprobs=values("sampling_logprob"),
        token_entropies=values("entropy"),
        token_refined_entropies=values("refined_entropy"),
        token_iterations=counts("iterations"),
        token_divergences=values("divergence"),
        token_self_certainties=values("self_certainty"),
        token_branch_entropies=values("branch_entropy") if branches else (),
        token_ties=counts("tie"),
        token_changes=counts("changed"),
    )


def records_of(telemetry: Telemetry, count: int) -> np.ndarray:
    """The records of the first ``count`` tokens of a traced, plain rollout, ``[count, fields]``."""
    columns = {
        "entropy": telemetry.token_entropies,
        "refined_entropy": telemetry.token_refined_entropies,
        "confidence": telemetry.token_confidences,
        "self_certainty": telemetry.token_self_certainties,
        "logprob": telemetry.token_logprobs,
        # Rollouts of older stores have none.
        "sampling_logprob": telemetry.token_sampling_logprobs or (math.nan,) * count,
        "tie": telemetry.token_ties,
        "branch_entropy": telemetry.token_branch_entropies,
    }
    records = np.zeros((count, len(FIELDS)))
    for name, values in columns.items():
        records[:, COLUMN[name]] = values[:count]
    return records
