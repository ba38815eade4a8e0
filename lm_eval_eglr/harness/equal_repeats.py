"""A warning where a backend gave the same text for every repeat, as with one seed for all requests."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lm_eval.api.instance import Instance

from lm_eval_eglr.harness.instances import PoolResponse

logger = logging.getLogger(__name__)

LOOKED_AT = 5
"""Problems whose repeats are compared."""


def warn_of_equal_repeats(task: str, instances: Sequence[Instance]) -> None:
    """Says if a backend gave each of the first problems the same text every time, as with one seed for all.

    Responses that are whole pools are left alone: of them only the selected texts would be compared.
    """
    repeated = [instance.resps for instance in instances if _are_single_texts(instance.resps)][:LOOKED_AT]
    if repeated and all(len({str(text) for text in texts}) == 1 for texts in repeated):
        logger.warning(
            "%s: all %d texts of each of the first %d problems are equal; if they were sampled, the backend "
            "sent the same seed with every request, as local-chat-completions does: --gen_kwargs seed=None",
            task,
            len(repeated[0]),
            len(repeated),
        )


def _are_single_texts(responses: Sequence[str]) -> bool:
    pools = [response.pool for response in responses if isinstance(response, PoolResponse)]
    return len(responses) > 1 and all(pool is None or len(pool) == 1 for pool in pools)
