"""The report: one HTML file that needs no network and runs no text of a model."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lm_eval_eglr.reports.figures import all_figures
from lm_eval_eglr.reports.headline import Figure, headline
from lm_eval_eglr.reports.leaderboard import leaderboard, leaderboard_table
from lm_eval_eglr.reports.problems import ENTROPY_STEP, facet_names, pool_chunk, problem_rows
from lm_eval_eglr.reports.strategies import StrategyRow, strategy_row
from lm_eval_eglr.reports.tables import Table
from lm_eval_eglr.reports.untrusted import for_script
from lm_eval_eglr.store import Document, Store

PARTS = files("lm_eval_eglr.reports") / "parts"
SECTIONS = {
    "grid": "Accuracy over the grid",
    "axes": "Which axis solves which problems",
    "pareto": "Accuracy against cost",
    "curves": "pass@k and maj@k",
    "recursion": "Recursion by span",
    "entropy": "Entropy of rollouts",
}


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a page shows of one task of one store.

    Attributes:
        title: Model and task.
        figures: The headline.
        table: All strategies.
        plots: Figures by section.
        problems: Rows of the table of problems.
        facets: Fields that the table filters by.
        chunks: One deflated pool per problem.
        notes: What a reader must know before believing anything.
    """

    title: str
    figures: list[Figure]
    table: Table
    plots: dict[str, go.Figure]
    problems: list[dict[str, Any]]
    facets: list[str]
    chunks: list[str]
    notes: list[str]


Progress = Callable[[Sequence[Any], str], Iterable[Any]]


def run_of(
    store: Store,
    task: str,
    selectors: Sequence[str],
    vocabulary: Sequence[str] = (),
    progress: Progress = lambda items, what: items,
) -> Run:
    """Computes everything that a page shows of one task."""
    documents = store.documents(task)
    pools = [document.parsed for document in documents]
    model = store.manifest.model
    rows: list[StrategyRow] = [
        strategy_row(model, task, documents, name) for name in progress(selectors, f"Selecting on {task}")
    ]
    shared = store.manifest.fingerprint.get("noise") == "shared"
    return Run(
        f"{model} · {task}",
        headline(pools),
        leaderboard_table(leaderboard(rows)),
        all_figures(pools, rows),
        problem_rows(documents),
        facet_names(documents),
        [pool_chunk(each, vocabulary, shared) for each in progress(documents, f"Packing {task}")],
        _notes(store, task, documents),
    )


def _notes(store: Store, task: str, documents: Sequence[Document]) -> list[str]:
    rollouts = [rollout for document in documents for rollout in document.parsed]
    cut = sum(rollout.truncated for rollout in rollouts)
    silent = len(rollouts) - sum(len(document.parsed.answered) for document in documents)
    ungraded = sum(
        document.parsed.correct[i] is None for document in documents for i in document.parsed.answered
    )
    notes = [
        f"{len(documents)} problems, {len(rollouts)} rollouts: {cut} were cut off by the token limit, "
        f"{silent} have no answer, {ungraded} answers could not be graded."
    ]
    if any(document.parsed.pool.uses_reference for document in documents):
        notes.append(
            "The reference decided which problems got more rollouts (budget=labels): every figure here uses "
            "reference, and none is that of a fair strategy."
        )
    missing = sum(place[0] == task for place in store.missing)
    if missing:
        notes.append(f"Incomplete: {missing} pools are missing, and the quicker problems came first.")
    return notes


def render_page(runs: Sequence[Run]) -> str:
    """Writes the page. The policy in its head lets no script run but the page's own."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((PARTS / "page.html.j2").read_text(encoding="utf-8"))
    scripts = [(PARTS / "page.js").read_text(encoding="utf-8"), get_plotlyjs()]
    data = [
        {
            "title": run.title,
            "problems": run.problems,
            "facets": run.facets,
            "plots": {name: json.loads(figure.to_json()) for name, figure in run.plots.items()},
        }
        for run in runs
    ]
    return template.render(
        runs=runs,
        sections=SECTIONS,
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
        style=Markup((PARTS / "page.css").read_text(encoding="utf-8")),
        data=Markup(for_script({"runs": data, "step": ENTROPY_STEP})),
    )


def _hash(script: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"
