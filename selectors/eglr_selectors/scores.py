"""Scores of rollouts: their own, a verifier's or telemetry's; and the rollout that scores highest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from eglr_selectors.parsed import ParsedPool
from eglr_selectors.pool import Telemetry
from eglr_selectors.selection import Selection
from eglr_selectors.verifiers.registry import Verifier, scores_of
from eglr_selectors.voting import choose, undefined


def signals(parsed: ParsedPool, read: Callable[[Telemetry], float]) -> list[float]:
    """Returns one figure of the telemetry per rollout, NaN where there is none."""
    return [math.nan if rollout.telemetry is None else read(rollout.telemetry) for rollout in parsed]


def scores_for(parsed: ParsedPool, verifier: Verifier | None) -> Sequence[float]:
    """Returns a verifier's scores; without one the rollouts' own, else their mean log-probabilities."""
    if verifier is not None:
        return scores_of(verifier, parsed)
    scores = own_scores(parsed)
    if all(map(math.isnan, scores)):
        return signals(parsed, lambda telemetry: telemetry.mean_logprob)
    return scores


def own_scores(parsed: ParsedPool) -> list[float]:
    """Returns the score that each rollout came with, NaN where it has none."""
    return [math.nan if rollout.score is None else float(rollout.score) for rollout in parsed]


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
