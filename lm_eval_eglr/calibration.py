"""The entropy threshold that gates a wanted share of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from eglr_selectors import RolloutPool

EDGES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Entropies, nats, between which tokens are counted. Most tokens are certain: bins of one width would put
nearly all of them into the first."""

BAR = 32


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What a sample of plain decoding says about the gate.

    Attributes:
        threshold: τ, nats: the share of tokens above it is the nearest possible to the wanted one.
        gate_rate: The share of the sample's tokens above it.
        entropies: Entropy of p_0 at every token of the sample, nats, ``[tokens]``.
        prompts: Number of prompts in the sample.
    """

    threshold: float
    gate_rate: float
    entropies: np.ndarray
    prompts: int

    def histogram(self) -> str:
        """The distribution as text: tokens by entropy, what a threshold there would gate, τ marked."""
        edges, shares = self.bins()
        lines = ["entropy, nats     tokens   above"]
        above = 1.0
        for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True):
            bar = "█" * round(BAR * share / shares.max())
            mark = " ← τ" if low <= self.threshold < high else ""
            lines.append(f"{low:6g} – {high:<6g}   {share:6.1%}  {above:6.1%}  {bar}{mark}")
            above = max(0.0, above - share)
        return "\n".join(lines)

    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """Edges of logarithmic bins, nats, ``[bins + 1]``, and the share of tokens in each, ``[bins]``."""
        largest = float(self.entropies.max())
        inner = [edge for edge in EDGES if edge <= largest]
        last = next((edge for edge in EDGES if edge > largest), math.floor(largest) + 1)
        edges = np.array([0.0, *inner, last])
        counts = np.histogram(self.entropies, edges)[0]
        return edges, counts / len(self.entropies)


def measured_gate_rate(pools: Iterable[RolloutPool | None]) -> float:
    """The share of gated tokens among those of spans above 0; 0 if there are none, as of recurrences."""
    gated = tokens = 0
    for pool in pools:
        for rollout in pool or ():
            if rollout.telemetry is not None and rollout.cell.axis == "L" and rollout.cell.span:
                gated += rollout.telemetry.gated_tokens
                tokens += len(rollout.tokens)
    return gated / tokens if tokens else 0.0


def calibrate(pools: Sequence[RolloutPool], gate_rate: float) -> Calibration:
    """Finds the threshold in traced pools of the plain model.

    Args:
        pools: Decoded at span 0 with ``trace=True``.
        gate_rate: Wanted share of gated tokens.

    Raises:
        ValueError: If the rate is not between 0 and 1, or the pools are not traced.
    """
    if isinstance(gate_rate, bool) or not 0 < gate_rate < 1:
        raise ValueError(f"gate_rate={gate_rate!r}: expected a number > 0 and < 1")
    values = [
        entropy
        for pool in pools
        for rollout in pool
        if rollout.telemetry is not None
        for entropy in rollout.telemetry.token_entropies
        if not math.isnan(entropy)
    ]
    if not values:
        raise ValueError("pools: no rollout has the entropies of its tokens; decode with trace=True")
    entropies = np.sort(np.array(values))
    # The gate is H > τ, so τ is the largest entropy that must stay below it.
    below = min(len(entropies) - 1, max(0, round(len(entropies) * (1 - gate_rate)) - 1))
    threshold = float(entropies[below])
    return Calibration(threshold, float(np.mean(entropies > threshold)), entropies, len(pools))
