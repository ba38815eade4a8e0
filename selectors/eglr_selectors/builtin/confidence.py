"""Votes weighted by how sure the model was, as exponentials of a mean over tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

from eglr_selectors.options import check_number
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.pool import Telemetry
from eglr_selectors.registry import SelectFn, register_selector
from eglr_selectors.scores import signals
from eglr_selectors.selection import Selection
from eglr_selectors.voting import abstained, vote


@register_selector("entropy_weighted")
def entropy_weighted(*, beta: float = 1.0) -> SelectFn:
    """Votes weighted by exp(-beta * mean entropy in nats); beta=0 is majority (this project).

    Weights are relative to the surest rollout's. Without telemetry it is undefined, unless beta is 0.
    """
    return _exponential(lambda telemetry: -telemetry.mean_entropy, "mean entropy", beta)


@register_selector("logprob_weighted")
def logprob_weighted(*, beta: float = 1.0) -> SelectFn:
    """Votes weighted by exp(beta * mean log-probability): length-normalised probability at beta=1.

    Wang et al. 2023, arXiv 2203.11171, equation 1 and the "normalized weighted sum" of table 1.
    Weights are relative to the likeliest rollout's. Without telemetry it is undefined, unless beta is 0.
    """
    return _exponential(lambda telemetry: telemetry.mean_logprob, "mean log-probability", beta)


def _exponential(read: Callable[[Telemetry], float], what: str, beta: float) -> SelectFn:
    beta = check_number("beta", beta, low=0)

    def choice(parsed: ParsedPool) -> Selection:
        if beta == 0:
            return vote(parsed, ((i, 1.0) for i in parsed.answered))
        signal = signals(parsed, read)
        voters = [i for i in parsed.answered if not math.isnan(signal[i])]
        if not voters:
            return abstained(parsed, signal, what)
        # Relative to the surest: a large beta must not make all weights zero.
        surest = max(signal[i] for i in voters)
        return vote(parsed, ((i, math.exp(beta * (signal[i] - surest))) for i in voters))

    return choice
