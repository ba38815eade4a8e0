"""Several processes: what lm_eval does not see to when they share the documents of a task.

lm_eval gives document i to process i mod n, repeats the last request of a process that has fewer, and
cannot run a process that has none: it raises there while the others wait. With our tasks and our model
such a process gets a stand-in request, which is never decoded, stored or scored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance

from lm_eval_eglr.response import PoolRequest


def borrowed_answers(requests: Sequence[Instance]) -> dict[int, int | None]:
    """The requests that need no decoding.

    Returns:
        Number of each such request to that of the request whose answer it takes, because lm_eval repeats
        it to give every process equally many; to ``None`` for a stand-in, whose answer nobody reads.
    """
    seen: dict[int, list[int]] = {}
    borrowed: dict[int, int | None] = {}
    for number, request in enumerate(requests):
        numbers = seen.setdefault(id(request), [])
        if isinstance(request, PoolRequest) and request.stand_in:
            borrowed[number] = None
        elif len(numbers) >= (request.repeats or 1):
            borrowed[number] = numbers[0]
        numbers.append(number)
    return borrowed


def stand_ins(requests: Iterable[Instance]) -> None:
    """Turns the requests of some document into stand-ins; their prompt is empty, so that no cache of
    responses can take their answer for that of the document.
    """
    for request in requests:
        assert isinstance(request, PoolRequest)
        request.stand_in = True
        request.arguments = ("", *request.arguments[1:])


def with_all_metrics(gathered: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lets a process that scored no document of a task have an empty list of each metric.

    Args:
        gathered: Of every process, task name to its metrics, or to its samples.
    """
    return [
        {task: defaultdict(list, found) if isinstance(found, dict) else found for task, found in each.items()}
        for each in gathered
    ]


def refuse_idle_processes(
    world_size: int, tasks: Iterable[Any], limit: float | None, samples: Mapping[str, list[int]] | None
) -> None:
    """Refuses tasks that have fewer documents than there are processes, on every process alike.

    Args:
        world_size: Number of processes.
        tasks: Tasks whose requests lm_eval itself builds.
        limit: As lm_eval's ``--limit``: a number of documents, or a share below 1.
        samples: As lm_eval's ``--samples``: document numbers by task.

    Raises:
        ValueError: If there is such a task.
    """
    from lm_eval.evaluator_utils import get_sample_size

    for task in tasks:
        name = task.config.task
        most = get_sample_size(task, limit)
        chosen = (samples or {}).get(name)
        count = len(set(chosen)) if chosen else len(task.eval_docs)
        if most and not chosen:
            count = min(count, int(most))
        if count < world_size:
            raise ValueError(
                f"{world_size} processes: {name} has {count} documents in this run, and lm_eval cannot run a "
                f"process without one; expected at most {count} processes"
            )
