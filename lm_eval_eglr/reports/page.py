"""The report: one HTML file that needs no network and runs no text of a model."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lm_eval_eglr.reports.baseline_runs import TemperatureRun, depth_axis, is_grid
from lm_eval_eglr.reports.escaping import for_script
from lm_eval_eglr.reports.figure_text import figure_text
from lm_eval_eglr.reports.figures import all_figures
from lm_eval_eglr.reports.headline import Figure, budget_comparisons, headline
from lm_eval_eglr.reports.leaderboard import leaderboard
from lm_eval_eglr.reports.leaderboard_table import leaderboard_table
from lm_eval_eglr.reports.page_budget import Progress, pack
from lm_eval_eglr.reports.page_notes import Setting, page_notes, settings_of
from lm_eval_eglr.reports.pool_chunk import ENTROPY_STEP
from lm_eval_eglr.reports.problems import axes_in_words, facet_names, problem_rows
from lm_eval_eglr.reports.selector_rows import StrategyRow, strategy_row
from lm_eval_eglr.reports.summary import Summary, summary
from lm_eval_eglr.reports.tables import Table
from lm_eval_eglr.store import Document, Store

MOST_BYTES = 24e6
"""What pools may take, so that with the plotting library and the tables the page stays under 30 MB."""

PARTS = files("lm_eval_eglr.reports") / "parts"
# In this order: the last one starts what the others define.
SCRIPTS = ("elements.js", "figures.js", "problems.js", "pool.js", "page.js")
SECTIONS = {
    "grid": "Accuracy over the grid",
    "axes": "Which axis solves which problems",
    "pareto": "Accuracy against cost",
    "curves": "pass@k and maj@k",
    "recursion": "Iterations by depth",
    "entropy": "Entropy of rollouts",
}


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a page shows of one task of one store.

    Attributes:
        title: Task, model and store.
        task: The task.
        summary: The first lines.
        figures: More figures that sum the task up: oracles of each axis, other budgets.
        settings: What decided the rollouts.
        table: All strategies.
        plots: Figures by section.
        problems: Rows of the table of problems.
        grid: Whether its pools have a depth axis; if not, nothing is said of axes.
        axes: What the column "Solved by" tells apart, in words.
        noun: What its depth axis is called.
        facets: Fields that the table filters by.
        chunks: One deflated pool per problem.
        notes: What a reader must know before believing anything.
    """

    title: str
    task: str
    summary: Summary
    figures: list[Figure]
    settings: list[Setting]
    table: Table
    plots: dict[str, go.Figure]
    problems: list[dict[str, Any]]
    grid: bool
    axes: str
    noun: str
    facets: list[str]
    chunks: list[str]
    notes: list[str]


def run_of(
    store: Store,
    task: str,
    documents: Sequence[Document],
    selectors: Sequence[str],
    vocabulary: Sequence[str] = (),
    progress: Progress = lambda items, what: items,
    temperature: TemperatureRun | None = None,
    most: float = MOST_BYTES,
) -> Run:
    """Computes everything that a page shows of one task.

    Args:
        store: The run.
        task: One of its tasks.
        documents: The task's documents, as :meth:`Store.documents` gives them.
        selectors: The strategies of the table.
        vocabulary: Text of each token id.
        progress: Is handed what takes long.
        temperature: A run of temperature alone that the headline compares with.
        most: Bytes that its pools may take in the page; less is then said of single tokens.
    """
    pools = [document.parsed for document in documents]
    model = store.manifest.model
    rows: list[StrategyRow] = [
        strategy_row(model, task, documents, name) for name in progress(selectors, f"Selecting on {task}")
    ]
    chunks, left_out = pack(documents, vocabulary, most, progress, f"Packing {task}")
    notes = page_notes(store, task, documents, temperature)
    if left_out:
        notes.append(f"{left_out}, to keep the page within its size (--max-size).")
    comparisons = budget_comparisons(pools, temperature, progress, f"Comparing budgets on {task}")
    return Run(
        " · ".join(part for part in (task, model, store.folder.name) if part),
        task,
        summary(pools, comparisons),
        headline(pools, comparisons, temperature),
        settings_of(store),
        leaderboard_table(leaderboard(rows)),
        all_figures(pools, rows, temperature, progress, f"Drawing {task}"),
        problem_rows(documents),
        is_grid(pools),
        axes_in_words(pools),
        depth_axis(pools).noun,
        facet_names(documents),
        chunks,
        notes,
    )


def render_page(runs: Sequence[Run]) -> str:
    """Writes the page. The policy in its head lets no script run but the page's own."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((PARTS / "page.html.j2").read_text(encoding="utf-8"))
    scripts = [*((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS), get_plotlyjs()]
    data = [
        {
            "title": run.title,
            "task": run.task,
            "problems": run.problems,
            "facets": run.facets,
            "grid": run.grid,
            "axes": run.axes,
            "plots": {
                name: {"alt": figure_text(SECTIONS[name], figure), **json.loads(figure.to_json())}
                for name, figure in run.plots.items()
            },
        }
        for run in runs
    ]
    return template.render(
        runs=runs,
        sections=SECTIONS,
        nouns=sorted({run.noun for run in runs if run.grid}),
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
        style=Markup((PARTS / "page.css").read_text(encoding="utf-8")),
        data=Markup(for_script({"runs": data, "step": ENTROPY_STEP})),
    )


def _hash(script: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"
