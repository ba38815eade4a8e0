"""Formulas of problems and answers become elements of MathML; nothing else of a text does."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lm_eval_eglr.reports.mathematics import ATTRIBUTES, ELEMENTS, answer_node, mathematics_in


def names(node: Any) -> set[str]:
    return set() if isinstance(node, str) else {node[0]}.union(*map(names, node[1]))


def texts(node: Any) -> str:
    return node if isinstance(node, str) else "".join(map(texts, node[1]))


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (r"Find $\frac{1}{2}x$ now", ["text", "math", "text"]),
        (r"\(x^2\) and \[y\] and $$z$$", ["math", "text", "math", "text", "math"]),
        ("It costs $5 and she has $7.", ["text"]),
        ("no formula", ["text"]),
        ("", ["text"]),
    ],
)
def test_texts_are_split_at_their_formulas(text: str, kinds: list[str]) -> None:
    assert ["text" if isinstance(node, str) else "math" for node in mathematics_in(text)] == kinds


def test_a_fraction_is_a_fraction() -> None:
    node = answer_node(r"\frac{1}{2}")
    assert "mfrac" in names(node)
    assert texts(node) == "12"
    assert answer_node("12") == "12"


@pytest.mark.parametrize(
    "formula",
    [
        r"\text{<script>alert(1)</script>}",
        r"\text{<b>bold</b>}",
        r"\href{javascript:alert(1)}{x}",
        r"\unknowncommand{x}^2",
        r"\frac{1}{",
        "{" * 900 + "x^2" + "}" * 900,
        r"\text{<!DOCTYPE a [<!ENTITY b 'c'>]>}^2",
        "x^2" * 1_000,
    ],
)
def test_what_is_no_formula_is_shown_as_it_was_written(formula: str) -> None:
    assert answer_node(formula) == formula
    assert mathematics_in(f"see ${formula}$") == [f"see ${formula}$"]


def test_only_elements_and_attributes_of_mathematics_are_made() -> None:
    assert not ELEMENTS & {"script", "maction", "annotation-xml", "semantics", "a", "img"}
    assert not [name for name in ATTRIBUTES if name.startswith("on") or "href" in name or name == "style"]


def test_hostile_texts_take_no_time() -> None:
    began = time.process_time()
    for text in ("\\[" * 50_000, "$a" * 50_000, "$$" * 9_000, "\\(" * 9_999):
        mathematics_in(text)
    assert time.process_time() - began < 20
