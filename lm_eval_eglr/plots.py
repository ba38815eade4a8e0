"""One call for each figure of the page: from a store, or parsed pools, to a plotly figure.

A notebook shows what they return; ``figure.write_image("grid.svg")`` makes a file of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import plotly.graph_objects as go
from eglr_selectors import ParsedPool, default_selectors

from lm_eval_eglr.reports import figures, pareto
from lm_eval_eglr.reports.baseline_runs import temperature_run
from lm_eval_eglr.reports.figure_style import styled
from lm_eval_eglr.reports.selector_rows import strategy_row
from lm_eval_eglr.store import Document, PoolKey, Store

__all__ = ["axes", "cost", "curves", "entropy", "grid", "recursion"]

Pools = Store | Sequence[ParsedPool]
"""A store, or pools as :func:`eglr_selectors.parse_pools` makes them."""


def grid(pools: Pools, task: str | None = None) -> go.Figure:
    """Draws the accuracy of every depth and temperature, with 95 % intervals.

    Args:
        pools: A store, or parsed pools with their references.
        task: Which task of a store; needed where it has several.

    Raises:
        ValueError: If the store has several tasks and none is named, or not the one that is.
    """
    return styled(figures.grid_heat_map(_parsed(pools, task)))


def axes(pools: Pools, task: str | None = None) -> go.Figure:
    """Draws how many problems each combination of axes solves; arguments as in :func:`grid`."""
    return styled(figures.solved_by_axis(_parsed(pools, task)))


def curves(pools: Pools, task: str | None = None, plain: Store | None = None) -> go.Figure:
    """Draws pass@k and maj@k against k, with 95 % bands.

    Args:
        pools: A store, or parsed pools with their references.
        task: Which task of a store.
        plain: A store of temperature alone that is drawn beside it; by default the pools' own rollouts of
            span 0, or of the deepest recurrences.

    Raises:
        ValueError: If ``plain`` has none of the problems, or is of another model.
    """
    if plain is None:
        return styled(figures.curves_over_k(_parsed(pools, task)))
    if not isinstance(pools, Store):
        raise ValueError("plain: expected a store to draw it beside, not pools")
    name, documents = _documents(pools, task)
    there = [(plain, plain.documents(name))] if name in plain.tasks else []
    run = temperature_run(pools, documents, there)
    if run is None:
        found = [document.parsed for document in documents]
        baseline = figures.depth_axis(found).name(figures.baseline_depth(figures.cells_of(found)))
        raise ValueError(
            f"plain: {plain.folder} has no rollouts of {baseline} alone for these problems and this model"
        )
    parsed = [documents[place].parsed for place in run.places]
    return styled(figures.curves_over_k(parsed, run))


def cost(pools: Pools, task: str | None = None, selectors: Iterable[str] | None = None) -> go.Figure:
    """Draws the accuracy of selectors against what they cost.

    Args:
        pools: A store, or parsed pools with their references.
        task: Which task of a store.
        selectors: The selectors; by default all that need no options.
    """
    if isinstance(pools, Store):
        name, documents = _documents(pools, task)
    else:
        name, documents = "", [Document(PoolKey("", i), parsed) for i, parsed in enumerate(pools)]
    names = default_selectors() if selectors is None else list(selectors)
    return styled(pareto.accuracy_against_cost([strategy_row("", name, documents, each) for each in names]))


def recursion(pools: Pools, task: str | None = None) -> go.Figure:
    """Draws how many tokens were iterated on, and how often, by depth; arguments as in :func:`grid`."""
    return styled(figures.recursion_by_depth(_parsed(pools, task)))


def entropy(pools: Pools, task: str | None = None) -> go.Figure:
    """Draws the mean entropies of right and wrong rollouts; arguments as in :func:`grid`."""
    return styled(figures.entropy_histogram(_parsed(pools, task)))


def _parsed(pools: Pools, task: str | None) -> Sequence[ParsedPool]:
    if not isinstance(pools, Store):
        return list(pools)
    return [document.parsed for document in _documents(pools, task)[1]]


def _documents(store: Store, task: str | None) -> tuple[str, list[Document]]:
    if task is None and len(store.tasks) != 1:
        raise ValueError(f"task=None: expected one of {', '.join(store.tasks)}")
    name = store.tasks[0] if task is None else task
    return name, store.documents(name)
