"""The single rollout that scores highest."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import Choice, register_selector
from eglr_selectors.selection import Selection
from eglr_selectors.strategies.confidence import signals
from eglr_selectors.voting import choose, undefined


@register_selector("best_of_n")
def best_of_n() -> Choice:
    """The rollout with the highest score: the pool's own, else the mean log-probability.

    Cobbe et al. 2021, arXiv 2110.14168. Rollouts with an answer go before those without; among
    equal scores the first in grid order wins. Rollouts that have no score are passed over.
    """

    def choice(parsed: ParsedPool) -> Selection:
        scores = [math.nan if rollout.score is None else rollout.score for rollout in parsed]
        if all(map(math.isnan, scores)):
            scores = signals(parsed, lambda telemetry: telemetry.mean_logprob)
        return highest(parsed, scores)

    return choice


def highest(parsed: ParsedPool, scores: Sequence[float], *, among: Sequence[int] | None = None) -> Selection:
    """Returns the rollout of the highest score, one with an answer if there is any.

    Args:
        parsed: The pool.
        scores: One per rollout of the pool; NaN passes a rollout over.
        among: The rollouts to choose from; all by default.
    """
    among = range(len(parsed)) if among is None else among
    answered = [i for i in among if parsed.classes[i] >= 0]
    scored = [i for i in answered or among if not math.isnan(scores[i])]
    if not scored:
        reason = "no rollout has a score" if len(parsed) else "the pool is empty"
        return undefined(parsed, reason, consumed=among)
    return choose(parsed, max(scored, key=lambda i: scores[i]), consumed=among)
