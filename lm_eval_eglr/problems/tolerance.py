"""The tolerance that a document may have of its own, as grading rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from eglr_selectors import Rules


def rules_of(doc: Mapping[str, Any], rules: Rules, reference: str | None) -> Rules:
    """The benchmark's rules, with the absolute ``tolerance`` that a document may have of its own.

    Args:
        doc: The document.
        rules: Of its benchmark.
        reference: Its reference answer.
    """
    tolerance = doc.get("tolerance")
    if not tolerance or reference is None:
        return rules
    # A hair more, so that an answer on the edge is inside in floating point too.
    relative = tolerance / abs(float(reference)) * (1 + 1e-9)
    return replace(rules, relative_tolerance=relative)
