"""The figures of a benchmark, made with plotly: for the page, and as PNG or SVG for papers."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go
from eglr_selectors import ParsedPool
from eglr_selectors.depth_axis import baseline_depth
from eglr_selectors.estimators import bootstrap, curve, maj_at_k, oracle_of, pass_at_k
from plotly.subplots import make_subplots

from lm_eval_eglr.reports.baseline_runs import TemperatureRun, cells_of, depth_axis, is_grid, paired_pools
from lm_eval_eglr.reports.figure_style import BLUE, GREEN, GREY, ORANGE, PURPLE, styled
from lm_eval_eglr.reports.page_budget import Progress
from lm_eval_eglr.reports.pareto import accuracy_against_cost
from lm_eval_eglr.reports.selector_rows import StrategyRow, mean

WHOLE = "all rollouts"


def all_figures(
    pools: Sequence[ParsedPool],
    rows: Sequence[StrategyRow],
    temperature: TemperatureRun | None = None,
    progress: Progress = lambda items, what: items,
    what: str = "Drawing",
) -> dict[str, go.Figure]:
    """Makes every figure that the pools have data for.

    The names are those of the page's sections and of exported files. Pools of other backends have no depth
    axis and no telemetry, so the figures of these are left out of theirs.

    Args:
        pools: The pools.
        rows: All strategies.
        temperature: Plain samples of the same problems, for the curves over k.
        progress: Is handed the figures to make.
        what: Label of the progress bar.
    """
    grid = is_grid(pools)
    telemetry = [r.telemetry for parsed in pools for r in parsed if r.telemetry is not None]
    recursed = any(work.recursions for work in telemetry)
    priced = any(not math.isnan(row.tokens) and not math.isnan(row.value) for row in rows)
    uncertain = any(not math.isnan(work.mean_entropy) for work in telemetry)
    makers: list[tuple[str, bool, Callable[[], go.Figure]]] = [
        ("grid", grid, lambda: grid_heat_map(pools)),
        ("axes", grid, lambda: solved_by_axis(pools)),
        ("pareto", priced, lambda: accuracy_against_cost(rows)),
        ("curves", True, lambda: curves_over_k(pools, temperature)),
        ("recursion", recursed, lambda: recursion_by_depth(pools)),
        ("entropy", uncertain, lambda: entropy_histogram(pools)),
    ]
    wanted = [(name, make) for name, has_data, make in makers if has_data]
    drawn = {name: make() for name, make in progress(wanted, what)}
    for figure in drawn.values():
        styled(figure)
    return drawn


def _shares(values: Sequence[float]) -> list[float | None]:
    """Percent for plotly, which draws nothing where there is ``None``."""
    return [None if math.isnan(value) else 100 * value for value in values]


def grid_heat_map(pools: Sequence[ParsedPool]) -> go.Figure:
    """Accuracy of every depth and temperature, its samples averaged, with 95 % intervals."""
    axis = depth_axis(pools)
    cells: dict[tuple[int, float | None], list[list[float]]] = defaultdict(lambda: [[] for _ in pools])
    for place, parsed in enumerate(pools):
        for rollout, correct in zip(parsed, parsed.correct, strict=True):
            if correct is not None:
                cells[rollout.cell.depth, rollout.cell.temperature][place].append(float(correct))
    depths = sorted({depth for depth, _ in cells})
    temperatures = sorted({t for _, t in cells}, key=lambda t: -1.0 if t is None else t)
    values: list[list[float | None]] = []
    texts: list[list[str]] = []
    for depth in depths:
        found = [
            bootstrap([mean(problem) for problem in cells[depth, t]], samples=2000)
            if (depth, t) in cells
            else None
            for t in temperatures
        ]
        values.append([None if each is None else _shares([each.value])[0] for each in found])
        texts.append(
            [
                ""
                if each is None or math.isnan(each.value)
                else f"{100 * each.value:.1f} %<br>{100 * each.low:.0f}–{100 * each.high:.0f}"
                for each in found
            ]
        )
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=["unknown" if t is None else f"T = {t:g}" for t in temperatures],
            y=[axis.heading(depth) for depth in depths],
            text=texts,
            texttemplate="%{text}",
            textfont={"color": "#14171c"},  # on cells that are light in both themes
            colorscale=[[0, "#edf2fa"], [1, "#6fa1e0"]],
            colorbar={"title": {"text": "% correct"}, "thickness": 12},
            hovertemplate="%{y}, %{x}: %{text}<extra></extra>",
            xgap=2,
            ygap=2,
        )
    )
    figure.update_xaxes(title="temperature", side="bottom")
    figure.update_yaxes(title=axis.title)
    return figure


def solved_by_axis(pools: Sequence[ParsedPool]) -> go.Figure:
    """An UpSet plot: how many problems each combination of axes solves."""
    axis, baseline = depth_axis(pools), baseline_depth(cells_of(pools))
    sets = (
        f"temperature ({axis.heading(baseline)})",
        f"{axis.parts} (T = 0)",
        f"joint ({axis.others(baseline)}, T > 0)",
    )
    counts: dict[tuple[bool, bool, bool], int] = defaultdict(int)
    for parsed in pools:
        solved = [r.cell for r, correct in zip(parsed, parsed.correct, strict=True) if correct]
        counts[
            any(cell.depth == baseline for cell in solved),
            any(cell.temperature == 0 for cell in solved),
            any(cell.depth != baseline and cell.temperature != 0 for cell in solved),
        ] += 1
    combinations = sorted(counts, key=lambda members: (not any(members), -counts[members]))
    columns = list(range(len(combinations)))
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.65, 0.35], vertical_spacing=0.04)
    totals = [counts[members] for members in combinations]
    colours = [GREY if not any(members) else BLUE for members in combinations]
    figure.add_bar(
        x=columns,
        y=totals,
        text=totals,
        textposition="outside",
        marker_color=colours,
        row=1,
        col=1,
        cliponaxis=False,
        hovertemplate="%{y} problems<extra></extra>",
    )
    for member, name in enumerate(sets):
        figure.add_scatter(
            x=columns,
            y=[name] * len(columns),
            mode="markers",
            row=2,
            col=1,
            hoverinfo="skip",
            marker={
                "size": 12,
                "color": [BLUE if m[member] else "rgba(128,128,128,0.25)" for m in combinations],
            },
        )
    figure.update_xaxes(showticklabels=False, showgrid=False)
    figure.update_xaxes(title="solved by", row=2, col=1)
    figure.update_yaxes(title="problems", row=1, col=1)
    figure.update_yaxes(showgrid=False, autorange="reversed", row=2, col=1)
    figure.update_layout(showlegend=False)
    return figure


def curves_over_k(pools: Sequence[ParsedPool], temperature: TemperatureRun | None = None) -> go.Figure:
    """pass@k and maj@k of whole pools and of plain samples, with 95 % bands over problems.

    Plain samples are those of a run of their own, if there is one, else the rollouts of the baseline: span 0,
    or the deepest recurrences.
    """
    figure = go.Figure()
    sizes = [len(parsed) for parsed in pools]
    parts: list[tuple[str, Sequence[ParsedPool], str]] = [(WHOLE, pools, "solid")]
    if temperature is not None:
        parts.append((f"plain samples ({temperature.name})", temperature.pools, "dash"))
    else:
        _, plain = paired_pools(pools, None)
        if all(map(len, plain)) and any(len(a) != len(b) for a, b in zip(plain, pools, strict=True)):
            baseline = depth_axis(pools).name(baseline_depth(cells_of(pools)))
            parts.append((f"plain samples ({baseline})", plain, "dash"))
    for part, chosen, dash in parts:
        for name, estimator, colour in (("pass@k", pass_at_k, BLUE), ("maj@k", maj_at_k, ORANGE)):
            points = {
                k: bootstrap(found.values, samples=2000) for k, found in curve(estimator, chosen).items()
            }
            ks, label = list(points), f"{name}, {part}"
            high, low = _shares([p.high for p in points.values()]), _shares([p.low for p in points.values()])
            figure.add_scatter(
                x=[*ks, *reversed(ks)],
                y=[*high, *reversed(low)],
                fill="toself",
                fillcolor=colour,
                opacity=0.12,
                mode="lines",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=label,
            )
            figure.add_scatter(
                x=ks,
                y=_shares([p.value for p in points.values()]),
                mode="lines+markers",
                name=label,
                line={"color": colour, "dash": dash},
                legendgroup=label,
                hovertemplate="k = %{x}: %{y:.1f} %<extra>" + label + "</extra>",
            )
        if min(sizes) < max(sizes) and part == WHOLE:
            # k ends at the smallest pool; what the larger ones reach stands at their mean size.
            whole = bootstrap(oracle_of(chosen).values, samples=2000)
            figure.add_scatter(
                x=[sum(sizes) / len(sizes)],
                y=_shares([whole.value]),
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": _shares([whole.high - whole.value]),
                    "arrayminus": _shares([whole.value - whole.low]),
                },
                mode="markers",
                marker={"color": BLUE, "symbol": "diamond-open", "size": 10},
                name=f"all rollouts of each problem ({min(sizes)} to {max(sizes)}), oracle",
                hovertemplate="%{x:.3g} rollouts on average: %{y:.1f} %<extra></extra>",
            )
    ticks = [2**power for power in range(max(sizes).bit_length())]
    figure.update_xaxes(title="rollouts k", type="log", tickvals=ticks, ticktext=[str(k) for k in ticks])
    figure.update_yaxes(title="% correct", rangemode="tozero")
    return figure


def recursion_by_depth(pools: Sequence[ParsedPool]) -> go.Figure:
    """How much was iterated, by depth.

    Of spans the share of tokens that were recursed, and iterations per recursed token. Of recurrences, which
    iterate at every token, iterations per token, and the share of tokens whose exit rule was met.
    """
    axis = depth_axis(pools)
    recurrent = axis.symbol == "R"
    totals: dict[int, Counter[str]] = defaultdict(Counter)
    for parsed in pools:
        for rollout in parsed:
            if rollout.telemetry is not None and rollout.cell.depth > 0:
                of = totals[rollout.cell.depth]
                of["tokens"] += len(rollout.tokens)
                of["gated"] += rollout.telemetry.gated_tokens
                of["iterations"] += rollout.telemetry.recursions
                of["converged"] += rollout.telemetry.converged_tokens
    depths = sorted(depth for depth, of in totals.items() if of["tokens"])
    names = [axis.heading(depth) for depth in depths]
    share, per = ("converged", "tokens") if recurrent else ("gated", "gated")
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.24)
    figure.add_bar(
        x=names,
        y=[100 * totals[depth][share] / totals[depth]["tokens"] for depth in depths],
        marker_color=BLUE,
        row=1,
        col=1,
        hovertemplate="%{x}: %{y:.1f} % of tokens<extra></extra>",
    )
    figure.add_bar(
        x=names,
        y=[totals[d]["iterations"] / totals[d][per] if totals[d][per] else None for d in depths],
        marker_color=PURPLE,
        row=1,
        col=2,
        hovertemplate="%{x}: %{y:.2f} iterations<extra></extra>",
    )
    left, right = ("that exited", "token") if recurrent else ("recursed", "recursed token")
    figure.update_yaxes(title=f"% of tokens {left}", row=1, col=1)
    figure.update_yaxes(title=f"iterations per {right}", row=1, col=2)
    figure.update_layout(showlegend=False)
    return figure


def entropy_histogram(pools: Sequence[ParsedPool]) -> go.Figure:
    """Mean entropy of the rollouts that are right and of those that are not."""
    groups: dict[bool, list[float]] = {True: [], False: []}
    for parsed in pools:
        for rollout, correct in zip(parsed, parsed.correct, strict=True):
            if rollout.telemetry is not None and correct is not None:
                groups[correct].append(rollout.telemetry.mean_entropy)
    known = [value for values in groups.values() for value in values if not math.isnan(value)]
    edges = np.linspace(0, max(known, default=1.0) or 1.0, 41)
    figure = go.Figure()
    for correct, name, colour in ((True, "correct", GREEN), (False, "wrong or no answer", ORANGE)):
        values = np.array([value for value in groups[correct] if not math.isnan(value)])
        heights = np.histogram(values, edges)[0] / max(1, len(values))
        figure.add_bar(
            x=((edges[1:] + edges[:-1]) / 2).tolist(),
            y=(100 * heights).tolist(),
            name=f"{name} ({len(values)})",
            marker_color=colour,
            opacity=0.6,
            hovertemplate="%{x:.2f} nats: %{y:.1f} %<extra></extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_xaxes(title="mean entropy of a rollout, nats")
    figure.update_yaxes(title="% of the group")
    return figure


def entropy_distribution(edges: np.ndarray, shares: np.ndarray, threshold: float) -> go.Figure:
    """Entropies of tokens in logarithmic bins, with the gate's threshold.

    Args:
        edges: Of the bins, nats, ``[bins + 1]``.
        shares: Of all tokens, ``[bins]``.
        threshold: τ, nats.
    """
    names = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    template = "%{x} nats: %{y:.1f} %<extra></extra>"
    figure = go.Figure(go.Bar(x=names, y=100 * shares, marker_color=BLUE, hovertemplate=template))
    place = int(np.searchsorted(edges, threshold, side="right")) - 1
    figure.add_vline(place, line_color=ORANGE, annotation_text=f"τ = {threshold:.3g}")
    figure.update_xaxes(title="entropy of the plain next-token distribution, nats")
    figure.update_yaxes(title="% of tokens")
    return styled(figure)
