"""A budget that the documents of a task share, over all processes of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch.distributed
from lm_eval.api.instance import Instance

from lm_eval_eglr.decoding.budget import Key
from lm_eval_eglr.decoding.request import Request

Item = TypeVar("Item")


def gather(items: list[Item]) -> list[Item]:
    """Joins the items of all processes; every process must call it, with no items if it has none."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return items
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, items)
    return [item for each in gathered for item in each]


def keys_of(requests: Sequence[Instance]) -> dict[int, Key]:
    """Task, document and repeat of each request, by its number."""
    seen: dict[tuple[str, int], int] = {}
    keys = {}
    for number, request in enumerate(requests):
        task, document = str(request.task_name), int(request.doc_id or 0)
        repeat = seen.get((task, document), 0)
        seen[task, document] = repeat + 1
        keys[number] = (task, document, repeat)
    return keys


def sharers(plans: Mapping[int, Request], keys: Mapping[int, Key]) -> dict[str, str]:
    """By task, a digest of all its documents in all processes: with others, budgets are others."""
    mine = [(*keys[number], plan.document) for number, plan in plans.items()]
    everyone = sorted(gather(mine))
    return {
        task: hashlib.blake2b(
            repr([each for each in everyone if each[0] == task]).encode(), digest_size=8
        ).hexdigest()
        for task in {each[0] for each in everyone}
    }
