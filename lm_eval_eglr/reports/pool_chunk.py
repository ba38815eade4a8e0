"""One problem's pool as the page holds it: deflated, in base64, unpacked when it is opened."""

from __future__ import annotations

import base64
import json
import math
import string
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from eglr_selectors import Cell, ParsedPool

from lm_eval_eglr.reports.mathematics import Node, answer_node, mathematics_in
from lm_eval_eglr.reports.problems import statement
from lm_eval_eglr.store import Document

ENTROPY_STEP = 0.25
"""Nats per step of the ten colours of a token's entropy."""

Detail = Literal["full", "coarse", "recursion", "text"]
"""What is said of single tokens: entropies in ten steps, in four, none, or no tokens at all."""

# Ten steps to four: below 0.5 nats, 1 nat, 2 nats, and above.
_COARSE = str.maketrans("0123456789", "0022444488")
_CHANGED = str.maketrans("0123456789", "abcdefghij")
_STEPS = string.digits + string.ascii_uppercase
_STRIDE = 16


def pool_chunk(document: Document, vocabulary: Sequence[str], detail: Detail = "full") -> str:
    """Packs one problem's pool.

    Args:
        document: The problem.
        vocabulary: Text of each token id; without it tokens are not shown one by one.
        detail: How much is kept of single tokens.
    """
    parsed = document.parsed
    axis, baseline = parsed.pool.axis, parsed.pool.baseline_depth
    rollouts = [_rollout(parsed, index, vocabulary, detail) for index in range(len(parsed))]
    _share_beginnings(parsed, rollouts)
    _mark_departures(parsed, rollouts)
    content = {
        "problem": mathematics_in(statement(document)),
        "reference": parsed.reference,
        "axis": axis.symbol,
        "baseline": axis.name(baseline),
        "rollouts": rollouts,
        "formulas": _formulas([parsed.reference, *(shown["answer"] for shown in rollouts)]),
    }
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _rollout(parsed: ParsedPool, index: int, vocabulary: Sequence[str], detail: Detail) -> dict[str, Any]:
    rollout, answer = parsed[index], parsed.answers[index]
    shown: dict[str, Any] = {
        "cell": str(rollout.cell),
        **_coordinate(rollout.cell),
        "answer": None if answer is None else answer.text,
        "verdict": "none"
        if answer is None
        else {True: "right", False: "wrong", None: "?"}[parsed.correct[index]],
        "end": rollout.finish_reason,
        "count": len(rollout.tokens),
        "text": rollout.text,
    }
    telemetry = rollout.telemetry
    if telemetry is None:
        return shown
    if rollout.cell.axis == "R":
        shown["iterations"] = round(telemetry.recursions / max(1, len(rollout.tokens)), 1)
    else:
        shown["gated"] = telemetry.gated_tokens
    if telemetry.changed_tokens is not None:
        shown["changed"] = telemetry.changed_tokens
    if not math.isnan(telemetry.mean_entropy):
        shown["entropy"] = round(telemetry.mean_entropy, 3)
    count = len(rollout.tokens)
    traced = count and len(telemetry.token_entropies) == count and max(rollout.tokens) < len(vocabulary)
    if not traced or detail == "text":
        return shown
    del shown["text"]
    shown["pieces"] = [vocabulary[token] for token in rollout.tokens]
    shown["steps"] = _steps(telemetry.token_iterations, telemetry.token_changes)
    if detail != "recursion":
        heat = _digits(np.nan_to_num(np.array(telemetry.token_entropies) / ENTROPY_STEP, nan=0.0))
        shown["heat"] = heat.translate(_COARSE) if detail == "coarse" else heat
    return shown


def _coordinate(cell: Cell) -> dict[str, Any]:
    """Row and column of the depth × temperature matrix; nothing for what is on neither axis."""
    if cell.temperature is None or cell.path:
        return {}
    return {
        "depth": cell.depth,
        "column": f"T {cell.temperature:g}" + (f" #{cell.sample}" if cell.sample else ""),
    }


def _mark_departures(parsed: ParsedPool, rollouts: Sequence[dict[str, Any]]) -> None:
    """Says of each rollout at which token it leaves the baseline's in its column: span 0, or the deepest."""
    baseline = parsed.pool.baseline_depth
    plain = {
        (rollout.cell.temperature, rollout.cell.sample): rollout.tokens
        for rollout in parsed
        if rollout.cell.depth == baseline and rollout.tokens and not rollout.cell.path
    }
    for rollout, shown in zip(parsed, rollouts, strict=True):
        base = plain.get((rollout.cell.temperature, rollout.cell.sample))
        if rollout.cell.depth != baseline and base is not None and rollout.tokens and rollout.tokens != base:
            shown["leaves"] = common(rollout.tokens, base)


def _formulas(texts: Iterable[str | None]) -> dict[str, Node]:
    """The answers that are formulas, as elements."""
    found = {text: answer_node(text) for text in dict.fromkeys(texts) if text is not None}
    return {text: node for text, node in found.items() if not isinstance(node, str)}


def _share_beginnings(parsed: ParsedPool, rollouts: Sequence[dict[str, Any]]) -> None:
    """Says of rollouts that begin like an earlier one which that is, for how many tokens, and only the rest.

    Rollouts of one tree have long beginnings in common, further apart than deflate looks back. What is a
    function of the beginning alone, text and entropies, is the same there; entropies are compared to be sure.
    """
    first: dict[int, int] = {}
    whole = [dict(shown) for shown in rollouts]
    for index, shown in enumerate(rollouts):
        tokens, key, source = parsed[index].tokens, 0, None
        for end in range(_STRIDE, len(tokens) + 1, _STRIDE):
            key = hash((key, tokens[end - _STRIDE : end]))
            earlier = first.setdefault(key, index)
            if earlier != index:
                source = earlier
        if source is None or ("pieces" in shown) != ("pieces" in whole[source]):
            continue
        if "pieces" not in shown:
            same = common(shown["text"], whole[source]["text"])
            shown["like"] = [source, _utf16(shown["text"][:same])]
            shown["text"] = shown["text"][same:]
            continue
        same = common(tokens, parsed[source].tokens)
        shown["like"] = [source, same]
        shown["pieces"] = shown["pieces"][same:]
        if "heat" in shown and shown["heat"][:same] == whole[source].get("heat", "")[:same]:
            shown["heat"] = shown["heat"][same:]


def _utf16(text: str) -> int:
    """A text's length as the page's script counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def common(left: Sequence[Any], right: Sequence[Any]) -> int:
    """How many items two sequences have in common at their beginning."""
    same, most = 0, min(len(left), len(right))
    while same < most:  # by halves: slices are compared at the speed of C
        middle = (same + most + 1) // 2
        if left[same:middle] == right[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same


def _steps(iterations: Sequence[int], changes: Sequence[int]) -> str:
    """One character per token, its iterations; a small letter, from ``a`` for 0, where the token changed.

    Recurrences are many: capital letters go on from 10, and the last of them stands for all that are more.
    """
    digits = "".join(map(_STEPS.__getitem__, np.minimum(iterations, len(_STEPS) - 1).tolist()))
    if any(changes):
        letters = _digits(np.array(iterations)).translate(_CHANGED)
        digits = "".join(letters[i] if changed else digits[i] for i, changed in enumerate(changes))
    return digits.rstrip("0")


def _digits(values: np.ndarray) -> str:
    """One digit per value, 9 for all that are larger."""
    return (np.clip(values, 0, 9).astype(np.uint8) + ord("0")).tobytes().decode("ascii")
