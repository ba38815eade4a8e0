"""Colours and layout that all figures share."""

from __future__ import annotations

import plotly.graph_objects as go

BLUE, ORANGE, GREEN, PURPLE, GREY = "#3b78c2", "#d07a1f", "#2f9467", "#8a63b8", "#8a8f98"


def styled(figure: go.Figure) -> go.Figure:
    """Gives a figure the layout of all; it is changed and returned."""
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 60, "r": 16, "t": 16, "b": 56},
        font={"family": "system-ui, sans-serif", "size": 13, "color": GREY},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        height=360,
    )
    figure.update_xaxes(gridcolor="rgba(128,128,128,0.2)", zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor="rgba(128,128,128,0.2)", zeroline=False, automargin=True)
    return figure
