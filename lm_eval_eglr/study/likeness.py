"""How alike rollouts are by what they have in common, and how many plain ones a part of the grid is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eglr_selectors import ParsedPool
from eglr_selectors.depth_axis import DepthAxis
from eglr_selectors.estimators import dependence, worth_in_samples
from eglr_selectors.estimators.dependence import Kinship

from lm_eval_eglr.reports.tables import Table, Text
from lm_eval_eglr.study.figures_in_text import NONE, number
from lm_eval_eglr.study.matched import Matched


def _shared(axis: DepthAxis) -> dict[Kinship, str]:
    """What two cells may have in common, in words."""
    return {
        "same span": f"the same {'span' if axis.symbol == 'L' else 'number of recurrences'}, other draws",
        "same temperature column": f"the same column of temperature, other {axis.levels}",
        "neither": "neither",
        "greedy spans": f"T = 0, other {axis.levels}",
    }


def correlations(studies: Sequence[Matched]) -> Table:
    """Returns the correlation of the successes of two rollouts by what they have in common."""
    found = [dependence(each.grid) for each in studies]
    plain = [dependence(each.plain).get("same span") if each.plain else None for each in studies]
    rows = [
        (
            Text(label),
            *(Text(number(each[kind].correlation, 2) if kind in each else NONE) for each in found),
        )
        for kind, label in _shared(studies[0].axis).items()
    ]
    rows.append(
        (
            Text("plain rollouts, T > 0"),
            *(Text(NONE if each is None else number(each.correlation, 2)) for each in plain),
        )
    )
    header = ("two rollouts have in common", *(f"{each.title}, n = {each.problems}" for each in studies))
    note = "mean over pairs of cells of the correlation of solved and not solved, over problems"
    return Table(header, tuple(rows), 1, (note,))


def worth(studies: Sequence[Matched]) -> Table:
    """Returns how many plain rollouts solve, with an oracle, as much as parts of the grid do."""
    axis = studies[0].axis
    depths = sorted({depth for each in studies for depth in each.depths})
    baselines = sorted({each.baseline for each in studies})
    bases = " or ".join(map(str, baselines))
    parts: list[tuple[str, Callable[[Matched], list[ParsedPool]]]] = [
        (f"all greedy {axis.levels}, {bases} included", lambda each: each.part(greedy=True)),
        *(
            (
                f"plain greedy and greedy {axis.name(depth)}",
                lambda each, depth=depth: each.part(depth=(each.baseline, depth), greedy=True),
            )
            for depth in depths
        ),
        *(
            (
                f"samples of {axis.name(depth)}, T > 0",
                lambda each, depth=depth: each.part(depth=depth, greedy=False),
            )
            for depth in sorted({*baselines, *depths})
        ),
        ("the whole grid", lambda each: each.grid),
    ]
    rows = []
    for label, part in parts:
        shown, sizes = [], set()
        for each in studies:
            pools = part(each)
            size = len(pools[0])
            if size and each.plain:
                sizes.add(size)
                shown.append(number(worth_in_samples(pools, each.plain)))
            else:
                shown.append(NONE)
        if sizes:
            rows.append((Text(label), Text(" or ".join(map(str, sorted(sizes)))), *map(Text, shown)))
    header = ("part of the grid", "rollouts", *(f"{each.title}, n = {each.problems}" for each in studies))
    note = "plain rollouts whose mean pass@k is the part's oracle; more: beyond what the plain pools can say"
    return Table(header, tuple(rows), 1, (note,))
