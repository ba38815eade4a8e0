"""The tolerance that a document may have of its own, as grading rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from eglr_selectors import Rules


def rules_of(doc: Mapping[str, Any], rules: Rules, reference_key: str = "answer") -> Rules:
    """The benchmark's rules, with the absolute ``tolerance`` that a document may have of its own."""
    tolerance = doc.get("tolerance")
    if not tolerance:
        return rules
    # A hair more, so that an answer on the edge is inside in floating point too.
    relative = tolerance / abs(float(doc[reference_key])) * (1 + 1e-9)
    return replace(rules, relative_tolerance=relative)
