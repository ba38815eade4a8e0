"""The page's table of problems, and the pool that opens from each of its rows."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Sequence
from typing import Any

from eglr_selectors import ParsedPool, Rollout, get_selector
from eglr_selectors.estimators import solved_by

from lm_eval_eglr.reports.strategies import correctness
from lm_eval_eglr.store import Document

SNIPPET = 160
LONGEST_VALUE = 40
MOST_VALUES = 40
ENTROPY_STEP = 0.25
"""Nats per step of the ten colours of a token's entropy."""


def problem_rows(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """One row per problem, with everything that the table sorts and filters by."""
    majority = get_selector("majority")
    names = facet_names(documents)
    rows = []
    for document in documents:
        parsed = document.parsed
        entropies = [r.telemetry.mean_entropy for r in parsed if r.telemetry is not None]
        known = [value for value in entropies if not math.isnan(value)]
        verdict = correctness(parsed, majority(parsed))
        rows.append(
            {
                "id": document.head.doc_id,
                "problem": statement(document)[:SNIPPET],
                "reference": parsed.reference,
                "correct": sum(correct is True for correct in parsed.correct),
                "rollouts": len(parsed),
                "majority": None if math.isnan(verdict) else bool(verdict),
                "solved": solved_by(parsed),
                "answers": len(set(parsed.classes) - {-1}),
                "unanswered": len(parsed) - len(parsed.answered),
                "truncated": sum(rollout.truncated for rollout in parsed),
                "entropy": round(sum(known) / len(known), 3) if known else None,
                "facets": {name: str(document.fields.get(name)) for name in names},
            }
        )
    return rows


def facet_names(documents: Sequence[Document]) -> list[str]:
    """Fields such as subject and level: short values, few of them, shared by several problems."""
    names = []
    for name in documents[0].fields:
        values = [str(document.fields.get(name)) for document in documents]
        few = 1 < len(set(values)) <= min(MOST_VALUES, max(2, len(documents) // 2))
        if few and name != "answer" and max(map(len, values)) <= LONGEST_VALUE:
            names.append(name)
    return names


def statement(document: Document) -> str:
    """The problem as stated, else the prompt."""
    return str(document.fields.get("problem") or document.parsed.pool.prompt)


def pool_chunk(document: Document, vocabulary: Sequence[str], common_draws: bool) -> str:
    """One problem's pool, deflated and in base64: a page of 32,000 rollouts stays small until one is opened.

    Args:
        document: The problem.
        vocabulary: Text of each token id; without it tokens are not shown one by one.
        common_draws: Whether cells differ along the span in nothing but the recursion, so that where
            they part is where it changed a token.
    """
    parsed = document.parsed
    plain = {
        (rollout.cell.temperature, rollout.cell.sample): rollout
        for rollout in parsed
        if rollout.cell.span == 0
    }
    rollouts = []
    for index, rollout in enumerate(parsed):
        origin = plain.get((rollout.cell.temperature, rollout.cell.sample))
        parted = None
        if common_draws and origin is not None and rollout.cell.span:
            parted = _parting(rollout, origin)
        rollouts.append(_rollout(parsed, index, vocabulary, parted))
    content = {
        "prompt": parsed.pool.prompt,
        "problem": statement(document),
        "reference": parsed.reference,
        "rollouts": rollouts,
    }
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def _rollout(
    parsed: ParsedPool, index: int, vocabulary: Sequence[str], parted: tuple[int, int] | None
) -> dict[str, Any]:
    rollout, answer = parsed[index], parsed.answers[index]
    shown: dict[str, Any] = {
        "cell": str(rollout.cell),
        "answer": None if answer is None else answer.text,
        "verdict": "none"
        if answer is None
        else {True: "right", False: "wrong", None: "?"}[parsed.correct[index]],
        "end": rollout.finish_reason,
        "count": len(rollout.tokens),
        "text": rollout.text,
    }
    if parted is not None:
        shown["parted"] = parted[1]
    telemetry = rollout.telemetry
    if telemetry is None:
        return shown
    shown["gated"] = telemetry.gated_tokens
    if not math.isnan(telemetry.mean_entropy):
        shown["entropy"] = round(telemetry.mean_entropy, 3)
    count = len(rollout.tokens)
    if count and len(telemetry.token_entropies) == count and max(rollout.tokens) < len(vocabulary):
        del shown["text"]
        shown["pieces"] = [vocabulary[token] for token in rollout.tokens]
        shown["heat"] = "".join(map(_step, telemetry.token_entropies))
        shown["steps"] = "".join(str(min(9, each)) for each in telemetry.token_iterations)
        if parted is not None:
            shown["parted"] = parted[0]
    return shown


def _parting(rollout: Rollout, origin: Rollout) -> tuple[int, int] | None:
    """Where a rollout parts from the plain one, as a token and as a character; ``None`` if it never does."""
    if rollout.tokens == origin.tokens and rollout.text == origin.text:
        return None
    return _common(rollout.tokens, origin.tokens), _common(rollout.text, origin.text)


def _common(left: Sequence[Any], right: Sequence[Any]) -> int:
    for place, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return place
    return min(len(left), len(right))


def _step(entropy: float) -> str:
    return "0" if math.isnan(entropy) else str(min(9, int(entropy / ENTROPY_STEP)))
