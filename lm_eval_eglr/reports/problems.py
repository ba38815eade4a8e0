"""The page's table of problems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eglr_selectors import ParsedPool, correctness, get_selector
from eglr_selectors.depth_axis import baseline_depth
from eglr_selectors.estimators import solved_by

from lm_eval_eglr.reports.baseline_runs import cells_of, depth_axis
from lm_eval_eglr.reports.mathematics import Node, answer_node, mathematics_in
from lm_eval_eglr.store import Document

SNIPPET = 160
FORMULA = 12  # characters that a formula counts as
LONGEST_VALUE = 40
MOST_VALUES = 40


def problem_rows(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """One row per problem, with everything that the table sorts and filters by."""
    majority = get_selector("majority")
    names = facet_names(documents)
    pools = [document.parsed for document in documents]
    axis, baseline = depth_axis(pools), baseline_depth(cells_of(pools))
    rows = []
    for document in documents:
        parsed = document.parsed
        entropies = [r.telemetry.mean_entropy for r in parsed if r.telemetry is not None]
        known = [value for value in entropies if not math.isnan(value)]
        verdict = correctness(parsed, majority(parsed))
        snippet = shorten(statement(document), SNIPPET)
        nodes, formula = beginning(mathematics_in(statement(document))), answer_node(parsed.reference or "")
        rows.append(
            {
                "id": document.key.doc_id,
                "problem": snippet,
                **({"nodes": nodes} if any(not isinstance(node, str) for node in nodes) else {}),
                "reference": parsed.reference,
                **({} if isinstance(formula, str) else {"formula": formula}),
                "correct": sum(correct is True for correct in parsed.correct),
                "rollouts": len(parsed),
                "majority": None if math.isnan(verdict) else bool(verdict),
                "solved": {"layer": axis.noun}.get(solved := solved_by(parsed, baseline), solved),
                "answers": len(set(parsed.classes) - {-1}),
                "unanswered": len(parsed) - len(parsed.answered),
                "truncated": sum(rollout.truncated for rollout in parsed),
                "entropy": round(sum(known) / len(known), 3) if known else None,
                "facets": {name: str(document.fields.get(name)) for name in names},
            }
        )
    return rows


def axes_in_words(pools: Sequence[ParsedPool]) -> str:
    """What "solved by" tells apart, for the column's heading."""
    axis, baseline = depth_axis(pools), baseline_depth(cells_of(pools))
    return (
        f"The axis with a right rollout: temperature ({axis.name(baseline)}), {axis.noun} (temperature 0), "
        f"both, only joint cells ({axis.others(baseline)} and a temperature above 0), or none."
    )


def facet_names(documents: Sequence[Document]) -> list[str]:
    """Fields such as subject and level: short values, few of them, shared by several problems."""
    names = []
    for name in documents[0].fields:
        values = [str(document.fields.get(name)) for document in documents]
        few = 1 < len(set(values)) <= min(MOST_VALUES, max(2, len(documents) // 2))
        if few and name != "answer" and max(map(len, values)) <= LONGEST_VALUE:
            names.append(name)
    return names


def shorten(text: str, most: int) -> str:
    """The text, or its beginning up to a word's end and an ellipsis, of at most ``most`` characters."""
    if len(text) <= most:
        return text
    cut = text[: most - 2]
    return (cut.rsplit(maxsplit=1)[0] if " " in cut[most // 2 :] else cut) + " …"


def beginning(nodes: Sequence[Node]) -> list[Node]:
    """The first of a problem's texts and formulas; none of the formulas is cut."""
    kept: list[Node] = []
    left = SNIPPET
    for node in nodes:
        kept.append(shorten(node, left) if isinstance(node, str) else node)
        left -= len(node) if isinstance(node, str) else FORMULA
        if left < FORMULA:
            return kept if node is nodes[-1] else [*kept, " …"] if kept[-1] == node else kept
    return kept


def statement(document: Document) -> str:
    """The problem as stated, else the prompt."""
    return str(document.fields.get("problem") or document.parsed.pool.prompt)
