"""Accuracy against cost: every selector, and the front of those that no other beats at the same cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from lm_eval_eglr.reports.figure_style import BLUE, GREEN, GREY, ORANGE
from lm_eval_eglr.reports.selector_rows import StrategyRow


def accuracy_against_cost(rows: Sequence[StrategyRow]) -> go.Figure:
    """Every selector's accuracy against what it looks at, with the Pareto front: in tokens or in FLOPs."""
    figure = go.Figure()
    costs: list[tuple[str, Callable[[StrategyRow], float]]] = [
        ("tokens per problem", lambda row: row.tokens),
        ("GFLOPs per problem", lambda row: row.flops / 1e9),
    ]
    shown: list[tuple[str, int]] = []  # each axis with its number of traces
    for title, cost in costs:
        known = [row for row in rows if not math.isnan(row.value) and not math.isnan(cost(row))]
        if known:
            before = len(figure.data)
            _add_costs(figure, known, cost, visible=not shown)
            shown.append((title, len(figure.data) - before))
    figure.update_xaxes(title=shown[0][0] if shown else costs[0][0], rangemode="tozero")
    figure.update_yaxes(title="% correct", rangemode="tozero")
    if len(shown) > 1:
        figure.update_layout(updatemenus=[_axis_buttons(shown)])
    return figure


def _add_costs(
    figure: go.Figure, known: Sequence[StrategyRow], cost: Callable[[StrategyRow], float], *, visible: bool
) -> None:
    for name, uses_reference, colour in (("selectors", False, BLUE), ("oracles", True, ORANGE)):
        chosen = [row for row in known if row.uses_reference == uses_reference]
        if chosen:
            figure.add_scatter(
                x=[cost(row) for row in chosen],
                y=[100 * row.value for row in chosen],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [100 * (row.high - row.value) for row in chosen],
                    "arrayminus": [100 * (row.value - row.low) for row in chosen],
                    "thickness": 1,
                    "width": 3,
                },
                customdata=[[row.strategy, row.rollouts] for row in chosen],
                mode="markers",
                marker={"color": colour, "size": 9, "symbol": "diamond" if uses_reference else "circle"},
                name=name,
                visible=visible,
                hovertemplate="%{customdata[0]}<br>%{y:.1f} % at %{x:.4g}, "
                "%{customdata[1]:.3g} rollouts<extra></extra>",
            )
    front = pareto_front([row for row in known if not row.uses_reference], cost)
    most = max(cost(row) for row in known)
    figure.add_scatter(
        x=[cost(row) for row in front],
        y=[100 * row.value for row in front],
        mode="lines+text",
        line={"color": GREEN, "shape": "hv"},
        text=[row.strategy for row in front],
        # Towards the middle, and drawn over the edge where it is near, so that no name is cut off.
        textposition=["top right" if cost(row) < most / 2 else "top left" for row in front],
        cliponaxis=False,
        name="Pareto front",
        visible=visible,
        hoverinfo="skip",
    )


def _axis_buttons(shown: Sequence[tuple[str, int]]) -> dict[str, object]:
    """A switch between axes, each with its own traces."""
    buttons = []
    for title, _ in shown:
        visible = [title == other for other, count in shown for _ in range(count)]
        buttons.append(
            {
                "label": title.split()[0],
                "method": "update",
                "args": [{"visible": visible}, {"xaxis.title.text": title}],
            }
        )
    return {
        "type": "buttons",
        "direction": "right",
        "buttons": buttons,
        "x": 1,
        "xanchor": "right",
        "y": 1.02,
        "yanchor": "bottom",
        "pad": {"b": 4},
        "font": {"size": 12, "color": GREY},
        "bgcolor": "rgba(0,0,0,0)",
    }


def pareto_front(
    rows: Sequence[StrategyRow], cost: Callable[[StrategyRow], float] = lambda row: row.tokens
) -> list[StrategyRow]:
    """The rows that no other beats at the same or a lower cost, cheapest first."""
    front: list[StrategyRow] = []
    for row in sorted(rows, key=lambda row: (cost(row), -row.value)):
        if not front or row.value > front[-1].value:
            front.append(row)
    return front
