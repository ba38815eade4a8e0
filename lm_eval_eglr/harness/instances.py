"""What passes through lm_eval between a task and the model: a request for a pool, a text that carries one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from eglr_selectors import RolloutPool, Rules
from eglr_selectors.grading import DEFAULT
from lm_eval.api.instance import Instance

FALLBACKS = ("hash", "phrase", "last_number")
"""Where a selector looks for an answer when there is no box, in tasks that do not say where it is."""


@dataclass
class PoolRequest(Instance):
    """A request that wants the whole pool; to any other model it is an ordinary request.

    Attributes:
        reference: The reference answer, written beside the rollouts; no model looks at it.
        rules: When two answers are equal; written beside the rollouts, too.
        fallbacks: Where to look for an answer when there is no box; likewise.
        placeholder: Whether it only occupies a process that has no document of the task.
    """

    reference: str | None = None
    rules: Rules = DEFAULT
    fallbacks: tuple[str, ...] = ()
    placeholder: bool = False


class PoolResponse(str):
    """The selected rollout's text, with the pool it was selected from.

    A str subclass with a one-argument constructor survives lm_eval's filters, metrics, response cache
    and gathering, which a tuple or a dataclass does not.

    Attributes:
        pool: The rollouts; ``None`` only if the response was rebuilt from its text.
    """

    pool: RolloutPool | None = None

    @classmethod
    def of(cls, text: str, pool: RolloutPool) -> PoolResponse:
        """Joins a text and its pool."""
        response = cls(text)
        response.pool = pool
        return response


def keys_of(requests: Sequence[Instance]) -> dict[int, tuple[str, int, int]]:
    """Task, document and repeat of each request, by its index; repeats count from 0."""
    seen: Counter[tuple[str, int]] = Counter()
    keys = {}
    for index, request in enumerate(requests):
        task, doc_id = str(request.task_name), int(request.doc_id or 0)
        keys[index] = (task, doc_id, seen[task, doc_id])
        seen[task, doc_id] += 1
    return keys
