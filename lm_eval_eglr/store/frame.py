"""A store as a table of pandas: one row per rollout, with its answer and whether it is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from eglr_selectors import ParsedPool

from lm_eval_eglr.store.pool_key import PoolKey

if TYPE_CHECKING:
    import pandas

TELEMETRY = (
    "mean_entropy",
    "mean_logprob",
    "mean_confidence",
    "mean_self_certainty",
    "gated_tokens",
    "recursions",
    "changed_tokens",
)
"""What is known of a rollout as a whole; the figures of single tokens are in the store."""


def frame_of(documents: Iterable[tuple[PoolKey, ParsedPool]]) -> pandas.DataFrame:
    """Makes the table of :meth:`lm_eval_eglr.store.Store.to_pandas`."""
    import pandas as pd  # a second of import

    rows = [row for key, parsed in documents for row in _rows(key, parsed)]
    frame = pd.DataFrame(rows)
    if rows:  # right, wrong or not known: a column of objects would be none of them
        frame["correct"] = frame["correct"].astype("boolean")
    return frame


def _rows(key: PoolKey, parsed: ParsedPool) -> Iterator[dict[str, Any]]:
    for place, rollout in enumerate(parsed):
        answer, telemetry = parsed.answers[place], rollout.telemetry
        yield {
            "task": key.task,
            "doc_id": key.doc_id,
            "place": place,
            "axis": rollout.cell.axis,
            "span": rollout.cell.span,
            "temperature": rollout.cell.temperature,
            "sample": rollout.cell.sample,
            "branch": rollout.cell.branch,
            "answer": None if answer is None else answer.text,
            "answer_class": parsed.classes[place],
            "correct": None if parsed.reference is None else parsed.correct[place],
            "reference": parsed.reference,
            "finish_reason": rollout.finish_reason,
            "tokens": len(rollout.tokens) or None,
            "score": rollout.score,
            **{name: None if telemetry is None else getattr(telemetry, name) for name in TELEMETRY},
            "problem": parsed.problem,
            "text": rollout.text,
            **{f"field_{name}": value for name, value in key.fields.items() if _is_plain(value)},
        }


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool))
