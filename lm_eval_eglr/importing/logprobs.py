"""Telemetry from the log-probabilities that servers return: of each token, and of the likeliest ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eglr_selectors import Telemetry

CONFIDENCE_TOKENS = 20
"""Token confidence is the mean negative log-probability of so many likeliest tokens (arXiv 2508.15260)."""


def telemetry_of(
    logprobs: Sequence[float], top: Sequence[Sequence[float]] = (), keep_tokens: bool = True
) -> Telemetry | None:
    """What log-probabilities say of a rollout.

    Entropy and self-certainty are sums over the whole vocabulary, of which no server tells, so they stay
    undefined. Confidence is defined where every token has its 20 likeliest alternatives. vLLM's server cuts
    its list to 20 with the drawn token first: one that is not among the 20 likeliest stands in for the last.

    Args:
        logprobs: Log-probability of each token, nats, ``[tokens]``; at temperature 1 if the server's are.
        top: Log-probabilities of the likeliest tokens at each token, ``[tokens, >= 20]``, in any order.
        keep_tokens: Whether to keep the values of every token, not only their means.

    Returns:
        The telemetry; ``None`` if there are no tokens or one of them has no log-probability.
    """
    values = [float(value) for value in logprobs]
    if not values or any(math.isnan(value) for value in values):
        return None
    confidences: tuple[float, ...] = ()
    if len(top) == len(values) and all(_are_enough(each) for each in top):
        confidences = tuple(_confidence(each) for each in top)
    return Telemetry(
        mean_logprob=math.fsum(values) / len(values),
        mean_confidence=math.fsum(confidences) / len(confidences) if confidences else math.nan,
        token_logprobs=tuple(values) if keep_tokens else (),
        token_confidences=confidences if keep_tokens else (),
    )


def _confidence(top: Sequence[float]) -> float:
    likeliest = sorted(top, reverse=True)[:CONFIDENCE_TOKENS]
    return -math.fsum(likeliest) / CONFIDENCE_TOKENS


def _are_enough(top: Sequence[float]) -> bool:
    return len(top) >= CONFIDENCE_TOKENS and not any(math.isnan(value) for value in top)
