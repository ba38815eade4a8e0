"""The telemetry of one step: what each cell's token was drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.distributions import Distributions
from lm_eval_eglr.decoding.rows import Place, Row, TokenRecord
from lm_eval_eglr.decoding.ties import argmax_ties, recursion_ties

CONFIDENCE_TOKENS = 20  # DeepConf, arXiv 2508.15260, section 3


def record_tokens(
    rows: Sequence[Row],
    drawn: Mapping[Place, int],
    distributions: Distributions,
    recursion: RecursionConfig,
    rounding: float,
) -> None:
    """Appends each cell's token and its telemetry.

    Args:
        rows: The live rows, whose branches are written to.
        drawn: Token ids by place.
        distributions: What they were drawn from.
        recursion: With the thresholds that rounding may decide.
        rounding: How far a log-probability moves by rounding, nats.
    """
    logprobs = distributions.logprobs
    likeliest = logprobs.topk(min(CONFIDENCE_TOKENS, logprobs.shape[-1])).values
    confidences = (-likeliest.mean(-1)).tolist()
    greedy_ties = argmax_ties(likeliest, rounding)
    certainties = (-logprobs.mean(-1) - math.log(logprobs.shape[-1])).tolist()
    cells = list(drawn)
    entries = [distributions.entry(number, rows[number].branches[place].cell.span) for number, place in cells]
    chosen = logprobs[entries, [drawn[cell] for cell in cells]].tolist()
    for (number, place), entry, logprob in zip(cells, entries, chosen, strict=True):
        divergences = distributions.divergences(entry)
        branch = rows[number].branches[place]
        plain_entropy = distributions.entropies[distributions.entry(number, 0)]
        tie = (number, place) in distributions.ties if branch.cell.temperature else greedy_ties[entry]
        if branch.cell.span:
            tie |= recursion_ties(plain_entropy, divergences, recursion, rounding)
        branch.tokens.append(drawn[number, place])
        branch.records.append(
            TokenRecord(
                entropy=plain_entropy,
                refined_entropy=distributions.entropies[entry],
                logprob=logprob,
                confidence=confidences[entry],
                self_certainty=certainties[entry],
                iterations=len(divergences),
                divergence=divergences[-1] if divergences else 0.0,
                converged=distributions.converged(entry),
                tie=tie,
                changed=(number, place) in distributions.changed,
            )
        )
