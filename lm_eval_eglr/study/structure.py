"""The structure of the claim, and what is left of it at one budget: tables of axes, budgets and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from eglr_selectors import ParsedPool
from eglr_selectors.estimators import (
    accuracy,
    compare_at_budget,
    maj_at_k,
    mcnemar,
    oracle_of,
    pass_at_k,
    solved_by,
)

from lm_eval_eglr.calibration import measured_gate_rate
from lm_eval_eglr.reports.tables import Table, Text
from lm_eval_eglr.study.figures_in_text import NONE, mean, p_value, percent, points, share
from lm_eval_eglr.study.matched import Matched

BUDGETS = {"rollouts": "rollouts", "flops": "FLOPs", "unshared_flops": "FLOPs, nothing shared"}
VIEWS = {"pass": "oracle", "maj": "majority"}


def structure(studies: Sequence[Matched]) -> Table:
    """Returns accuracy of each axis, of the grid, and of as many plain rollouts."""
    parts = studies[0].axis.parts
    rows: list[tuple[str, str, Callable[[Matched], np.ndarray | None]]] = [
        ("greedy", "1", lambda each: accuracy(each.grid, "greedy").values),
        (f"{parts} only, oracle", "depths", lambda each: oracle_of(each.part(greedy=True)).values),
        ("temperature only, oracle", "column", lambda each: oracle_of(each.part(depth=each.baseline)).values),
        ("joint grid, oracle", "grid", lambda each: oracle_of(each.grid).values),
        ("joint grid, majority", "grid", lambda each: accuracy(each.grid, "majority").values),
        ("plain rollouts, majority", "column", lambda each: _plain_at(each, maj_at_k, "column")),
        ("plain rollouts, oracle", "grid", lambda each: _plain_at(each, pass_at_k, "grid")),
        ("plain rollouts, majority", "grid", lambda each: _plain_at(each, maj_at_k, "grid")),
    ]
    cells = []
    for label, size, values in rows:
        counts = sorted({_size(each, size) for each in studies})
        found = [values(each) for each in studies]
        shown = [NONE if one is None else share(one) for one in found]
        cells.append((Text(label), Text(" or ".join(map(str, counts))), *map(Text, shown)))
    return Table(
        ("per cent correct", "rollouts", *_titles(studies)),
        tuple(cells),
        1,
        (
            "an oracle looks at the reference: what a perfect selector would reach; 95 % bootstrap intervals "
            "over problems; of fewer plain rollouts than there are, the mean over all subsets",
        ),
    )


def axes(studies: Sequence[Matched]) -> Table:
    """Returns which axis solves which problems, and how many of these plain rollouts solve too."""
    rows = []
    noun = studies[0].axis.noun
    labels = {
        "both": "both axes",
        "temperature": f"the temperature axis and not the {noun} axis",
        "layer": f"the {noun} axis and not the temperature axis",
        "joint": _joint(studies),
        "none": "no rollout of the grid",
        "unknown": "not known",
    }
    for axis, label in labels.items():
        shown = []
        for each in studies:
            chosen = [i for i, parsed in enumerate(each.grid) if solved_by(parsed, each.baseline) == axis]
            plain = oracle_of([each.plain[i] for i in chosen]).values if each.plain else np.array([])
            shown.append(f"{len(chosen)}, {int(np.nansum(plain))}" if each.plain else f"{len(chosen)}")
        if axis != "unknown" or any(not text.startswith("0") for text in shown):
            rows.append((Text(label), *map(Text, shown)))
    note = "problems, and how many of them as many plain rollouts as the grid has solve too"
    return Table(("solved by", *_titles(studies)), tuple(rows), 1, (note,))


def budgets(studies: Sequence[Matched]) -> Table:
    """Returns the grid less plain rollouts at equal budgets, with paired intervals."""
    rows = []
    for figure, view in VIEWS.items():
        for budget, unit in BUDGETS.items():
            shown = [
                points(compare_at_budget(each.grid, each.plain, budget=budget, figure=figure).difference)  # type: ignore[arg-type]
                if each.plain
                else NONE
                for each in studies
            ]
            rows.append((Text(f"{view}, equal {unit}"), *map(Text, shown)))
        tests = [_test(each, "oracle" if figure == "pass" else "majority") for each in studies]
        rows.append((Text(f"{view}, equal rollouts: won, lost, McNemar"), *map(Text, tests)))
    note = "points, with paired 95 % bootstrap intervals; problems that only one side solves, and the exact p"
    return Table(("grid less plain rollouts", *_titles(studies)), tuple(rows), 1, (note,))


def cost(studies: Sequence[Matched]) -> Table:
    """Returns what a pool of the grid and one of plain rollouts cost."""
    rows: list[tuple[str, Callable[[Matched], str]]] = [
        ("tokens of a pool, grid", lambda each: f"{_tokens(each.grid):.0f}"),
        ("tokens of a pool, plain", lambda each: f"{_tokens(each.plain):.0f}" if each.plain else NONE),
        ("GFLOPs of a pool, grid", lambda each: _gflops(each.grid)),
        ("GFLOPs of a pool, plain", lambda each: _gflops(each.plain) if each.plain else NONE),
        ("FLOPs of a pool, grid over plain", lambda each: _ratio(each)),
        ("FLOPs per token, grid over plain", lambda each: _ratio(each, per_token=True)),
        ("FLOPs, grid over plain sampling that shares only the prompt", lambda each: _over_unshared(each)),
        ("tokens for each row that was run, grid", lambda each: _sharing(each.grid)),
        (
            "tokens for each row that was run, plain",
            lambda each: _sharing(each.plain) if each.plain else NONE,
        ),
        (
            "tokens that the gate opened at, %, spans above 0",
            lambda each: percent(measured_gate_rate(parsed.pool for parsed in each.grid)),
        ),
    ]
    if studies[0].axis.symbol == "R":  # which has no gate
        rows[-1] = ("iterations per token, grid", lambda each: _iterations(each.grid))
    cells = tuple((Text(label), *(Text(value(each)) for each in studies)) for label, value in rows)
    note = "means over problems; work that the rollouts of a pool share counts once"
    return Table(("cost", *_titles(studies)), cells, 1, (note,))


def _joint(studies: Sequence[Matched]) -> str:
    """The cells that are on neither axis alone."""
    if studies[0].axis.symbol == "L":
        return "only cells with a span and a temperature"
    others = " or ".join(sorted({each.axis.others(each.baseline) for each in studies}))
    return f"only cells of {others} and a temperature above 0"


def _iterations(pools: Sequence[ParsedPool]) -> str:
    tokens = iterations = 0
    for rollout in (rollout for parsed in pools for rollout in parsed):
        if rollout.telemetry is not None:
            tokens += len(rollout.tokens)
            iterations += rollout.telemetry.recursions
    return f"{iterations / tokens:.1f}" if tokens else NONE


def _titles(studies: Sequence[Matched]) -> list[str]:
    return [f"{each.title}, n = {each.problems}" for each in studies]


def _size(each: Matched, size: str) -> int:
    return {
        "1": 1,
        "grid": len(each.cells),
        "depths": sum(cell.temperature == 0 for cell in each.cells),
        "column": sum(cell.depth == each.baseline for cell in each.cells),
    }[size]


def _plain_at(each: Matched, estimator: Callable[..., object], size: str) -> np.ndarray | None:
    if not each.plain:
        return None
    k = min(_size(each, size), min(map(len, each.plain)))
    values: np.ndarray = estimator(each.plain, k).values  # type: ignore[attr-defined]
    return values


def _test(each: Matched, selector: str) -> str:
    if not each.plain or any(len(a) != len(b) for a, b in zip(each.grid, each.plain, strict=True)):
        return NONE
    test = mcnemar(accuracy(each.grid, selector).values, accuracy(each.plain, selector).values)
    return f"{test.only_first}, {test.only_second}, p = {p_value(test.p_value)}"


def _tokens(pools: Sequence[ParsedPool]) -> float:
    return mean([sum(len(rollout.tokens) for rollout in parsed) for parsed in pools])


def _flops(pools: Sequence[ParsedPool]) -> np.ndarray:
    return np.array([parsed.pool.cost.flops if parsed.pool.cost else np.nan for parsed in pools])


def _gflops(pools: Sequence[ParsedPool]) -> str:
    value = mean(_flops(pools)) / 1e9
    return NONE if np.isnan(value) else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _ratio(each: Matched, per_token: bool = False) -> str:
    if not each.plain:
        return NONE
    ratio = _flops(each.grid).sum() / _flops(each.plain).sum()
    if per_token:
        ratio *= _tokens(each.plain) / _tokens(each.grid)
    return NONE if np.isnan(ratio) else f"{ratio:.2f}"


def _over_unshared(each: Matched) -> str:
    costs = [parsed.pool.cost for parsed in each.grid]
    if any(one is None or not one.plain_flops for one in costs):
        return NONE
    return f"{sum(c.flops for c in costs if c) / sum(c.plain_flops for c in costs if c):.2f}"


def _sharing(pools: Sequence[ParsedPool]) -> str:
    costs = [parsed.pool.cost for parsed in pools]
    if any(one is None or not one.rows for one in costs):
        return NONE
    return f"{sum(c.tokens for c in costs if c) / sum(c.rows for c in costs if c):.2f}"
