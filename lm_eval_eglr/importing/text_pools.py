"""The plainest format: JSON lines of ``{"prompt": ..., "texts": [...], "reference": ...}``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eglr_selectors import Cell, FinishReason, Rollout

from lm_eval_eglr.importing.imported import (
    ImportOptions,
    Pools,
    Source,
    imported_pool,
    json_fields,
    reference_of,
    temperature_of,
)
from lm_eval_eglr.importing.json_lines import first_record, read_records, texts_in
from lm_eval_eglr.store import StoredPool

LISTS = ("texts", "scores", "finish_reasons")
OTHER_NAMES = ("answer", "target", "gold", "solution", "label", "ground_truth")
ALL = ("prompt", *LISTS, "reference", "temperature", "task", "doc_id", "model")


def recognises(path: Path) -> bool:
    """Whether a file's first line is of this format."""
    return path.is_file() and {"prompt", "texts"} <= first_record(path).keys()


def read(path: Path, options: ImportOptions) -> Source:
    """Reads one problem per line, or per entry of a JSON list.

    ``prompt`` and ``texts`` are needed. ``reference``, ``temperature``, ``task``, ``doc_id`` and ``model``
    are taken where they are; ``scores`` and ``finish_reasons`` hold one value per text; every other key
    becomes a field of the problem.

    Raises:
        ValueError: If a line is something else.
    """
    models: set[str] = set()
    pools = Pools(lambda: _pools(path, models))
    if len(models) > 1:
        raise ValueError(f"{path}: rollouts of {', '.join(sorted(models))}: expected one model per store")
    return Source(next(iter(models), None), pools, tuple(_notes(path, pools)))


def _pools(path: Path, models: set[str]) -> Iterator[StoredPool]:
    """Reads the pools, and adds the names of models to those that are known."""
    for number, (where, record) in enumerate(read_records(path)):
        if not isinstance(record.get("prompt"), str):
            raise ValueError(f"{where}: prompt={record.get('prompt')!r}: expected a text")
        texts = texts_in(record, "texts", where)
        scores = _per_text(record, "scores", len(texts), where)
        reasons = _per_text(record, "finish_reasons", len(texts), where)
        temperature = temperature_of(record.get("temperature"), where)
        rollouts = tuple(
            Rollout(
                text,
                Cell(0, temperature, i),
                _reason(reasons[i], where),
                score=_score(scores[i], where),
            )
            for i, text in enumerate(texts)
        )
        doc_id = record.get("doc_id", number)
        if not isinstance(doc_id, int) or isinstance(doc_id, bool) or not 0 <= doc_id < 2**63:
            raise ValueError(f"{where}: doc_id={doc_id!r}: expected an integer >= 0 of 64 bits")
        models |= {str(record["model"])} if record.get("model") else set()
        task = record.get("task")
        yield imported_pool(
            path.stem if task is None else str(task),
            doc_id,
            rollouts,
            prompt=record["prompt"],
            reference=reference_of(record.get("reference")),
            fields={"problem": record["prompt"], **json_fields(record, ALL)},
        )


def _notes(path: Path, pools: Pools) -> Iterator[str]:
    """Where the references may be, if no line has one under the name that is looked for."""
    first = next(iter(pools), None)
    if first is not None and pools.counts.unscored == len(pools):
        other = next((name for name in OTHER_NAMES if name in first.key.fields), None)
        if other is not None:
            yield f'{path}: no line has a "reference"; if "{other}" is it, give it that name'


def _per_text(record: dict[str, Any], key: str, count: int, where: str) -> list[Any]:
    values = record.get(key)
    if values is None:
        return [None] * count
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"{where}: {key}: expected a list of {count} values, one per text")
    return values


def _score(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{where}: scores: {value!r}: expected a number")
    return float(value)


def _reason(value: Any, where: str) -> FinishReason:
    if value is None:
        return "unknown"
    if value not in ("stop", "length", "error", "unknown"):
        raise ValueError(f"{where}: finish_reasons: {value!r}: expected stop, length, error or unknown")
    reason: FinishReason = value
    return reason
