"""Stores as plain JSON lines and back: the same pools, for other tools and other machines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from eglr_selectors import PoolCost, RolloutPool, rollout_from_record

from lm_eval_eglr.store.atomic_files import StoreError
from lm_eval_eglr.store.pool_key import PoolKey
from lm_eval_eglr.store.reader import StoredPool

OF_THE_POOL = (
    *(
        "document",
        "settings",
        "fields",
        "reference",
        "rules",
        "fallbacks",
        "prompt",
        "cost",
        "uses_reference",
    ),
)
NEEDED = {"task", "doc_id", "repeat", "place", "prompt", "cost", "text", "cell"}


def to_records(pools: Iterable[StoredPool]) -> Iterator[dict[str, Any]]:
    """Yields one record per rollout, with its place in the pool and its pool's head, prompt and cost."""
    for stored in pools:
        cost = None if stored.pool.cost is None else dataclasses.asdict(stored.pool.cost)
        shared = {**stored.key.to_columns(), "prompt": stored.pool.prompt, "cost": cost}
        if stored.pool.uses_reference:
            shared["uses_reference"] = True
        for place, record in enumerate(stored.pool.to_records()):
            yield {**shared, "place": place, **record}


def read_jsonl(path: Path) -> Iterator[StoredPool]:
    """Yields the pools of exported lines, in the order of the file.

    Raises:
        StoreError: If a line is no record of a rollout.
    """
    with path.open(encoding="utf-8") as file:
        for _, lines in groupby(_records(path, file), key=lambda r: (r["task"], r["doc_id"], r["repeat"])):
            yield StoredPool(*_pool(path, list(lines)))


def _pool(path: Path, records: list[dict[str, Any]]) -> tuple[PoolKey, RolloutPool]:
    """The pool of these lines; types are checked where it is written, for whoever made it."""
    try:
        records = sorted(records, key=lambda record: int(record["place"]))
        first = records[0]
        for record in records:
            if any(record.get(name) != first.get(name) for name in OF_THE_POOL):
                raise ValueError("its lines differ in what they say of the whole pool")
        cost = None if first["cost"] is None else PoolCost(**first["cost"])
        rollouts = tuple(rollout_from_record(record) for record in records)
        used = bool(first.get("uses_reference"))
        return PoolKey.from_columns(first), RolloutPool(rollouts, first["prompt"], cost, used)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        whose = f"document {records[0]['doc_id']!r} of {records[0]['task']!r}"
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise StoreError(f"{path}: {whose:.200}: not a pool of a rollout store ({reason})") from None


def _records(path: Path, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not record.keys() >= NEEDED:
            raise StoreError(
                f"{path}, line {number}: not a rollout as `eglr export --format jsonl` writes it"
            )
        yield record
