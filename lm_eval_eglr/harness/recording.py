"""Serves stored pools and records new ones, between the model class and the store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from eglr_selectors import RolloutPool
from lm_eval.api.instance import Instance

from lm_eval_eglr.decoding.request import Request
from lm_eval_eglr.harness.instances import PoolRequest, keys_of
from lm_eval_eglr.store import Manifest, PoolKey, StoreWriter

logger = logging.getLogger(__name__)


class Recording:
    """The pools of one call of ``generate_until``, by the number of their request.

    Attributes:
        served: Pools that an earlier run has made.
        kept: Pools that an earlier run had after their first round, those of served ones included.
    """

    def __init__(self, writer: StoreWriter | None, heads: Mapping[int, PoolKey]) -> None:
        self._writer = writer
        self._heads = heads
        self.served: dict[int, RolloutPool] = {}
        self.kept: dict[int, RolloutPool] = {}
        if writer is not None:
            found = {number: writer.load(head) for number, head in heads.items()}
            self.served = {number: pool for number, pool in found.items() if pool is not None}
            rounds = {number: writer.load_round(head) for number, head in heads.items()}
            self.kept = {number: pool for number, pool in rounds.items() if pool is not None}

    def keep(self, number: int, pool: RolloutPool) -> None:
        """Stores a pool, unless there is no store, or the request is one that lm_eval only repeats."""
        if self._writer is not None and number in self._heads and number not in self.served:
            self._writer.append(self._heads[number], pool)

    def keep_round(self, number: int, pool: RolloutPool) -> None:
        """Stores a pool that has ended its first round and may get more rollouts."""
        if self._writer is not None and number in self._heads:
            self._writer.append_round(self._heads[number], pool)


@contextmanager
def recording(
    writer: StoreWriter | None,
    manifest: Manifest,
    requests: Sequence[Instance],
    plans: Mapping[int, Request],
    fallbacks: Sequence[str],
    pieces: Callable[[], Sequence[str]],
    sharing: Mapping[str, str] | None = None,
) -> Iterator[Recording]:
    """Opens the store for the requests of one call.

    Args:
        writer: The store; ``None`` records and serves nothing.
        manifest: Of this run.
        requests: All requests.
        plans: The requests that are decoded by the engine; the others are left to HFLM.
        fallbacks: Where to look for answers of tasks that do not say so.
        pieces: Makes the text of each token id.
        sharing: By task, a digest of all documents that share their budgets, where they do: it decides
            the rollouts of each of them.

    Raises:
        StoreError: If another run is writing, or has written rollouts that are not this run's.
    """
    if writer is None:
        yield Recording(None, {})
        return
    heads = _heads(requests, plans, fallbacks, sharing or {})
    with writer.writing(manifest):
        writer.plan(heads.values())
        writer.describe_tokens(pieces)
        record = Recording(writer, heads)
        if record.served:
            logger.info(
                "rollouts=%s: %d of %d pools are there already", writer.folder, len(record.served), len(heads)
            )
        try:
            yield record
        except KeyboardInterrupt as interruption:
            interruption.args = ("the store has said how to go on",)
            logger.warning(
                "interrupted: %s holds %d pools; the same command continues with the missing ones",
                writer.folder,
                len(writer),
            )
            raise


def _heads(
    requests: Sequence[Instance],
    plans: Mapping[int, Request],
    fallbacks: Sequence[str],
    sharing: Mapping[str, str],
) -> dict[int, PoolKey]:
    """What each request's pool belongs to; without those that lm_eval adds to even out its processes."""
    keys = keys_of(requests)
    heads = {}
    for number, request in enumerate(requests):
        task, doc_id, repeat = keys[number]
        if repeat >= (request.repeats or 1):
            continue
        plan = plans.get(number)
        settings = _their_settings(request) if plan is None else _settings(plan)
        if task in sharing:
            settings["documents sharing the budget"] = sharing[task]
        head = PoolKey(
            task,
            doc_id,
            repeat,
            document=_text_key(request) if plan is None else plan.document,
            settings=settings,
            fields={str(key): value for key, value in request.doc.items() if _is_json(value)},
            fallbacks=tuple(fallbacks),
        )
        if isinstance(request, PoolRequest):
            head = dataclasses.replace(
                head, reference=request.reference, rules=request.rules, fallbacks=request.fallbacks
            )
        heads[number] = head
    return heads


def _text_key(request: Instance) -> str:
    return hashlib.blake2b(request.args[0].encode("utf-8", "replace"), digest_size=16).hexdigest()


def _their_settings(request: Instance) -> dict[str, Any]:
    return {"generation_kwargs": {key: value for key, value in request.args[1].items() if _is_json(value)}}


def _settings(plan: Request) -> dict[str, Any]:
    return {
        "cells": [str(cell) for cell in plan.cells],
        "max_gen_toks": plan.max_new_tokens,
        "until": list(plan.stop.strings),
        "think_end_token": plan.stop.after,
        "sampling": dataclasses.asdict(plan.sampling),
    }


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
