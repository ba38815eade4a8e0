"""A figure in words, for those who cannot see it: what is drawn, and its values where they are few."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

MOST_VALUES = 24
"""Values of a trace that are read out one by one; of more only the first, the last and the extremes."""


def figure_text(title: str, figure: go.Figure) -> str:
    """Returns a text alternative of a figure.

    Args:
        title: What it shows.
        figure: The figure; traces that are drawn for their shape alone (bands, hidden ones) are passed over.
    """
    parts = [part for trace in figure.data if (part := _trace_text(trace))]
    return f"{title}. " + " ".join(parts)


def _trace_text(trace: Any) -> str:
    if trace.hoverinfo == "skip" or trace.visible is False:
        return ""
    if trace.type == "heatmap":
        cells = [
            f"{y}, {x}: {_plain(text)}"
            for y, texts in zip(trace.y, trace.text, strict=True)
            for x, text in zip(trace.x, texts, strict=True)
            if text
        ]
        return "; ".join(cells) + "."
    pairs = [(x, y) for x, y in zip(trace.x or (), trace.y or (), strict=False) if y is not None]
    if not pairs:
        return ""
    names = [row[0] for row in trace.customdata] if trace.customdata is not None else []
    if len(pairs) > MOST_VALUES:
        high = max(pairs, key=lambda pair: pair[1])
        pairs, names = [pairs[0], high, pairs[-1]], []
    values = "; ".join(
        f"{names[i] + ' ' if i < len(names) else ''}{_number(x)}: {_number(y)}"
        for i, (x, y) in enumerate(pairs)
    )
    return f"{trace.name + ': ' if trace.name else ''}{values}."


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)


def _plain(text: str) -> str:
    return text.replace("<br>", ", ")
