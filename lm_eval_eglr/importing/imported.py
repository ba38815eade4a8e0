"""What every format is read into: pools with what they belong to, before a store holds them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Imported:
    """What one source holds.

    Attributes:
        model: The model's name; ``None`` if the source does not say.
        pools: The pools, in the source's order; at most one per task, document and repeat.
        notes: What was left out and why, one sentence each.
    """

    model: str | None
    pools: tuple[StoredPool, ...]
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
