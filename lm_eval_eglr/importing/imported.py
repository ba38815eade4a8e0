"""What every format is read into: pools with what they belong to, before a store holds them."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eglr_selectors import Rollout, RolloutPool, Rules
from eglr_selectors.grading import DEFAULT, extract

from lm_eval_eglr.store import PoolKey, StoredPool

FALLBACKS = ("hash", "phrase", "last_number")
"""Where an answer without a box is looked for, unless the source or the user says otherwise."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user says of a source that does not say it itself, or says it wrongly.

    Attributes:
        task: Name of the task; the source's own if ``None``.
        model: Name of the model; the source's own if ``None``.
        rules: When two answers are equal.
        fallbacks: Where to look for an answer when there is no box.
        requests: For responses of a batch, the file of its requests, which holds the prompts.
    """

    task: str | None = None
    model: str | None = None
    rules: Rules | None = None
    fallbacks: tuple[str, ...] | None = None
    requests: Path | None = None

    def __post_init__(self) -> None:
        if self.fallbacks is not None:
            extract("", fallbacks=self.fallbacks)  # refuses an unknown name


@dataclass(slots=True)
class PoolCounts:
    """What can be said of pools once all of them have been read.

    Attributes:
        pools: How many there are.
        rollouts: How many rollouts they have together.
        tokens: How many tokens these have, as far as their ids are known.
        unscored: How many have no reference answer.
        tasks: Of which tasks they are.
        axis: The depth axis of the first.
        telemetry: Whether anything is known of how some rollout was decoded, such as log-probabilities.
        cost: Whether the cost of some pool is known.
    """

    pools: int = 0
    rollouts: int = 0
    tokens: int = 0
    unscored: int = 0
    tasks: set[str] = field(default_factory=set)
    axis: str = "L"
    telemetry: bool = False
    cost: bool = False

    def add(self, stored: StoredPool) -> None:
        """Counts one pool more."""
        if not self.pools:
            self.axis = stored.pool.axis.symbol
        self.pools += 1
        self.rollouts += len(stored.pool)
        self.tokens += sum(len(rollout.tokens) for rollout in stored.pool)
        self.unscored += stored.key.reference is None
        self.tasks.add(stored.key.task)
        self.telemetry = self.telemetry or any(rollout.telemetry is not None for rollout in stored.pool)
        self.cost = self.cost or stored.pool.cost is not None

    def __or__(self, other: PoolCounts) -> PoolCounts:
        """Of the pools of both, the other ones last."""
        return PoolCounts(
            self.pools + other.pools,
            self.rollouts + other.rollouts,
            self.tokens + other.tokens,
            self.unscored + other.unscored,
            self.tasks | other.tasks,
            self.axis if self.pools else other.axis,
            self.telemetry or other.telemetry,
            self.cost or other.cost,
        )


class Pools:
    """The pools of a source, read anew whenever they are gone through: memory holds one of them.

    They are gone through once at the beginning, so what is wrong with a source is said before a store is
    begun.

    Args:
        read: Begins to read them.
        counts: What is known of them already, for a source that need not be gone through again.
    """

    def __init__(self, read: Callable[[], Iterator[StoredPool]], counts: PoolCounts | None = None) -> None:
        self._read = read
        self.counts = counts or PoolCounts()
        if counts is None:
            for stored in read():
                self.counts.add(stored)

    @classmethod
    def held(cls, pools: Sequence[StoredPool]) -> Pools:
        """Pools that a format can only read all at once."""
        return cls(lambda: iter(pools))

    @classmethod
    def joined(cls, parts: Sequence[Pools]) -> Pools:
        """The pools of several, one after the other."""
        counts = functools.reduce(operator.or_, (part.counts for part in parts), PoolCounts())
        return cls(lambda: itertools.chain.from_iterable(parts), counts)

    def __iter__(self) -> Iterator[StoredPool]:
        return self._read()

    def __len__(self) -> int:
        return self.counts.pools


@dataclass(frozen=True, slots=True)
class Imported:
    """What sources hold, all of it in memory.

    Attributes:
        model: The model's name; ``None`` if they do not say.
        pools: The pools, by task, document and repeat.
        notes: What was left out and why, one sentence each.
    """

    model: str | None
    pools: tuple[StoredPool, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """What sources hold, to be read pool by pool.

    Attributes:
        model: The model's name; ``None`` if they do not say.
        pools: The pools, in the order of the sources.
        notes: What was left out and why, one sentence each.
    """

    model: str | None
    pools: Pools
    notes: tuple[str, ...] = ()


def imported_pool(
    task: str,
    doc_id: int,
    rollouts: Sequence[Rollout],
    *,
    prompt: str = "",
    reference: str | None = None,
    fields: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    rules: Rules = DEFAULT,
    fallbacks: Sequence[str] = FALLBACKS,
) -> StoredPool:
    """Makes a pool that a store can hold.

    Args:
        task: The task as the source names it.
        doc_id: Number of the problem in its task.
        rollouts: Its rollouts; at least one.
        prompt: The prompt that they continue; empty if the source does not say.
        reference: The reference answer, ``None`` if there is none.
        fields: What else is known of the problem; JSON values.
        settings: What is known of how it was decoded; JSON values.
        rules: When two answers are equal.
        fallbacks: Where to look for an answer when there is no box.
    """
    document = hashlib.blake2b(prompt.encode("utf-8", "replace"), digest_size=16).hexdigest()
    key = PoolKey(
        task,
        doc_id,
        document=document,
        settings=dict(settings or {}),
        fields=dict(fields or {}),
        reference=reference,
        rules=rules,
        fallbacks=tuple(fallbacks),
    )
    return StoredPool(key, RolloutPool(tuple(rollouts), prompt))


def reference_of(target: Any) -> str | None:
    """The reference answer in what a tool calls target, gold or answer.

    A worked solution, such as GSM8K's, is reduced to the answer that it ends with, behind ``####`` or in a
    box. A list of one is that one.
    """
    if isinstance(target, (list, tuple)) and len(target) == 1:
        target = target[0]
    if target is None or isinstance(target, (list, tuple, dict)):
        return None
    text = str(target).strip()
    if not text:
        return None
    answer = extract(text, fallbacks=("hash",))
    return text if answer is None else answer.text


def json_fields(values: Mapping[str, Any], left_out: Iterable[str] = ()) -> dict[str, Any]:
    """The entries that are JSON values, but for some."""
    skipped = set(left_out)
    return {str(key): value for key, value in values.items() if key not in skipped and _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def temperature_of(value: Any, source: str) -> float | None:
    """A temperature as a source gives it; ``None`` if it does not.

    Raises:
        ValueError: If it is no number >= 0.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{source}: temperature={value!r}: expected a number >= 0")
    return float(value)
