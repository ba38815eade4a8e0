"""What scores decide: the single rollout that scores highest, and the vote weighted by scores."""

from __future__ import annotations

import math
from typing import Literal, get_args

from eglr_selectors.options import check_name
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.registry import SelectFn, register_selector
from eglr_selectors.scores import highest, own_scores, scores_for
from eglr_selectors.selection import Selection
from eglr_selectors.verifiers.registry import VerifierLike, get_verifier, scores_of
from eglr_selectors.voting import abstained, undefined, vote

Aggregate = Literal["sum", "max"]


@register_selector("best_of_n")
def best_of_n(*, verifier: VerifierLike | None = None) -> SelectFn:
    """The rollout that a verifier scores highest; without one, by its own score or mean log-probability.

    Cobbe et al. 2021, arXiv 2110.14168. Rollouts with an answer go before those without; among
    equal scores the first in grid order wins. Rollouts that have no score are passed over.
    """
    scorer = None if verifier is None else get_verifier(verifier)

    def choice(parsed: ParsedPool) -> Selection:
        return highest(parsed, scores_for(parsed, scorer))

    return choice


@register_selector("weighted_vote")
def weighted_vote(*, verifier: VerifierLike | None = None, aggregate: Aggregate = "sum") -> SelectFn:
    """Votes weighted by a verifier's scores, or by the pool's own; a class weighs their sum or maximum.

    Uesato et al. 2022, arXiv 2211.14275; Li et al. 2023, arXiv 2206.02336. Rollouts that have no
    score abstain. A sum of negative scores would count votes against an answer, so it is undefined:
    let the verifier give probabilities, or take ``aggregate="max"``.
    """
    check_name("aggregate", aggregate, get_args(Aggregate))
    scorer = None if verifier is None else get_verifier(verifier)

    def choice(parsed: ParsedPool) -> Selection:
        scores = own_scores(parsed) if scorer is None else scores_of(scorer, parsed)
        voters = [i for i in parsed.answered if not math.isnan(scores[i])]
        if not voters:
            return abstained(parsed, scores, "score")
        if aggregate == "sum" and any(scores[i] < 0 for i in voters):
            return undefined(parsed, "negative scores cannot be summed to weights")
        return vote(parsed, ((i, scores[i]) for i in voters), largest=aggregate == "max")

    return choice
