"""What search-and-learn writes: ``best_of_n_completions.jsonl`` and those of its other searches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eglr_selectors import Cell, Rollout

from lm_eval_eglr.importing.imported import (
    ImportOptions,
    Pools,
    Source,
    imported_pool,
    json_fields,
    reference_of,
)
from lm_eval_eglr.importing.json_lines import first_record, read_records, texts_in
from lm_eval_eglr.store import StoredPool

RESULTS = ("completions", "scores", "agg_scores", "completion_tokens", "pred")


def recognises(path: Path) -> bool:
    """Whether a file's first line has a problem and completions, or a folder has one such file."""
    if path.is_dir():
        found = list(path.glob("*_completions.jsonl"))
        return len(found) == 1 and recognises(found[0])
    return path.is_file() and {"problem", "completions"} <= first_record(path).keys()


def read(path: Path, options: ImportOptions) -> Source:
    """Reads one problem per line; a rollout's score is its aggregated reward, ``agg_scores``.

    The file says neither the prompt nor the temperature nor why a completion ended, and its model's name is
    its folder's.

    Raises:
        ValueError: If a line is something else.
    """
    if path.is_dir():
        found = sorted(path.glob("*_completions.jsonl"))
        if len(found) != 1:
            names = ", ".join(each.name for each in found) or "none"
            raise ValueError(f"{path}: expected one *_completions.jsonl, found {names}")
        path = found[0]
    return Source(path.resolve().parent.name or None, Pools(lambda: _pools(path)))


def _pools(path: Path) -> Iterator[StoredPool]:
    for number, (where, record) in enumerate(read_records(path)):
        if not isinstance(record.get("problem"), str):
            raise ValueError(f"{where}: problem={record.get('problem')!r}: expected a text")
        texts = texts_in(record, "completions", where)
        scores = _scores(record, len(texts), where)
        rollouts = [
            Rollout(text, Cell(0, None, i), score=score)
            for i, (text, score) in enumerate(zip(texts, scores, strict=True))
        ]
        fields = {
            key: value for key, value in json_fields(record, RESULTS).items() if not key.startswith("pred_")
        }
        if record.get("scores"):
            fields["step_scores"] = record["scores"]
        yield imported_pool(
            path.stem.removesuffix("_completions"),
            number,
            rollouts,
            prompt=record["problem"],
            reference=reference_of(record.get("answer")),
            fields=fields,
        )


def _scores(record: dict[str, Any], count: int, where: str) -> list[float | None]:
    """Aggregated rewards; the last step's where a search did not aggregate them, as its authors do."""
    found = record.get("agg_scores")
    if found is None and record.get("scores") is not None:
        found = [steps[-1] if isinstance(steps, list) and steps else None for steps in record["scores"]]
    if found is None:
        return [None] * count
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"{where}: agg_scores: expected a list of {count} numbers, one per completion")
    known = [isinstance(score, (int, float)) and math.isfinite(score) for score in found]
    return [float(score) if is_known else None for score, is_known in zip(found, known, strict=True)]
