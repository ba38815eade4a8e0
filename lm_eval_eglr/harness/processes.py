"""Several processes: what lm_eval does not see to when they share the documents of a task.

lm_eval gives document i to process i mod n, repeats the last request of a process that has fewer, and
cannot run a process that has none: it raises there while the others wait. With our tasks and our model
such a process gets a placeholder request, which is never decoded, stored or scored.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch.distributed
from lm_eval.api.instance import Instance

from lm_eval_eglr.decoding.request import Request
from lm_eval_eglr.decoding.strategies.rounds import Key
from lm_eval_eglr.harness.instances import PoolRequest

Item = TypeVar("Item")


def gather(items: list[Item]) -> list[Item]:
    """Joins the items of all processes; every process must call it, with no items if it has none."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return items
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, items)
    return [item for each in gathered for item in each]


def duplicate_requests(requests: Sequence[Instance]) -> dict[int, int | None]:
    """The requests that need no decoding.

    Returns:
        Number of each such request to that of the request whose answer it takes, because lm_eval repeats
        it to give every process equally many; to ``None`` for a placeholder, whose answer nobody reads.
    """
    seen: dict[int, list[int]] = {}
    borrowed: dict[int, int | None] = {}
    for number, request in enumerate(requests):
        numbers = seen.setdefault(id(request), [])
        if isinstance(request, PoolRequest) and request.placeholder:
            borrowed[number] = None
        elif len(numbers) >= (request.repeats or 1):
            borrowed[number] = numbers[0]
        numbers.append(number)
    return borrowed


def placeholders(requests: Iterable[Instance]) -> None:
    """Turns the requests of some document into placeholders; their prompt is empty, so that no cache of
    responses can take their answer for that of the document.
    """
    for request in requests:
        assert isinstance(request, PoolRequest)
        request.placeholder = True
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


def budget_group_digests(
    plans: Mapping[int, Request], keys: Mapping[int, Key], gather: Callable[[list[Any]], list[Any]]
) -> dict[str, str]:
    """By task, a digest of all its documents in all processes: with others, budgets are others."""
    mine = [(*keys[number], plan.document) for number, plan in plans.items()]
    everyone = sorted(gather(mine))
    return {
        task: hashlib.blake2b(
            repr([each for each in everyone if each[0] == task]).encode(), digest_size=8
        ).hexdigest()
        for task in {each[0] for each in everyone}
    }
