"""What other models' problems suggested, tested on fresh problems of the demo model. The plan came first.

    python examples/demo_model/fresh_task.py demo_fresh --count 4000 --seed 2 --out fresh
    eglr study demo --tasks demo_fresh --include-path fresh --out fresh/few --spans 0:1:2:4 \
        --temperatures 0 --samples 0:0.7x3
    eglr study demo --tasks demo_fresh --include-path fresh --out fresh/grid --spans 0:1:2:4 --limit 2000
    python benchmarks/confirmation.py fresh

The plan below was committed before a problem of ``demo_fresh`` was decoded. It has six hypotheses, all of
them tested two-sided by McNemar's exact test and corrected together by Holm's method:

1. Span 1 alone at T = 0 (an eighth of the depth, as span 4 of 28 layers) solves more than plain greedy.
2. Of the four greedy spans 0, 1, 2, 4 the rollout with the highest mean log-probability (``best_of_n``)
   solves more than plain greedy.
3. The same solves more than the majority of four plain rollouts, one of them greedy: as many rollouts.
4. The entropy-weighted vote of the four greedy spans solves more than plain greedy.
5. The oracle of the 4 x 4 grid differs from that of 16 plain rollouts.
6. The majority of the grid differs from that of 16 plain rollouts.

Power, stated first: 400 validation problems (seed 1) were decoded to learn how often two strategies differ.
The shares of problems that only one of the two solves were 0.075, 0.058, 0.078 and 0.045 for the first four;
the 200 problems of ``eglr demo`` say about 0.083 for the last two. At the level of Holm's first step,
0.05 / 6, and a power of 0.8, 4000 problems show 1.5, 1.3, 1.5 and 1.2 points, and 2000 problems show 2.2.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from eglr_selectors import ParsedPool
from eglr_selectors.estimators import accuracy, holm, mcnemar, paired_bootstrap

from lm_eval_eglr.store import read_store
from lm_eval_eglr.study.figures_in_text import p_value, points
from lm_eval_eglr.study.page import versions

TASK = "demo_fresh"


@dataclass(frozen=True, slots=True, eq=False)
class Hypothesis:
    """What is compared: success on every problem of the one and of the other, ``[problems]``."""

    text: str
    first: np.ndarray
    second: np.ndarray


def plan(few: dict[str, list[ParsedPool]], grid: dict[str, list[ParsedPool]]) -> list[Hypothesis]:
    """The six hypotheses, in the order of the plan."""
    greedy = accuracy(few["grid"], "greedy").values
    one = accuracy([parsed.subset(lambda r: r.cell.span == 1) for parsed in few["grid"]], "first").values
    best = accuracy(few["grid"], "best_of_n").values
    vote = accuracy(few["grid"], "entropy_weighted").values
    majority = accuracy(few["samples"], "majority").values
    return [
        Hypothesis("greedy span 1, against plain greedy", one, greedy),
        Hypothesis("best_of_n of four greedy spans, against plain greedy", best, greedy),
        Hypothesis("the same, against the majority of four plain rollouts", best, majority),
        Hypothesis("entropy_weighted of four greedy spans, against plain greedy", vote, greedy),
        *(
            Hypothesis(
                f"{name} of the grid, against 16 plain rollouts",
                accuracy(grid["grid"], name).values,
                accuracy(grid["samples"], name).values,
            )
            for name in ("oracle", "majority")
        ),
    ]


def not_planned(few: dict[str, list[ParsedPool]]) -> list[Hypothesis]:
    """Comparisons that came to mind afterwards; no correction makes them a confirmation."""
    return [
        Hypothesis(
            f"{name} of four greedy spans, against the same of four plain rollouts",
            accuracy(few["grid"], name).values,
            accuracy(few["samples"], name).values,
        )
        for name in ("best_of_n", "entropy_weighted", "oracle")
    ]


def row(each: Hypothesis, corrected: str) -> str:
    """One line of the table."""
    test = mcnemar(each.first, each.second)
    means = f"{100 * each.first.mean():.1f} | {100 * each.second.mean():.1f}"
    difference = points(paired_bootstrap(each.first, each.second))
    return (
        f"| {each.text} | {len(each.first)} | {means} | {difference} | "
        f"{test.only_first}, {test.only_second} | {p_value(test.p_value)} | {corrected} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the two studies are")
    folder: Path = parser.parse_args().folder
    few, grid = (
        {
            name: [document.parsed for document in read_store(folder / study / name).documents(TASK)]
            for name in ("grid", "samples")
        }
        for study in ("few", "grid")
    )
    hypotheses = plan(few, grid)
    corrected = holm([mcnemar(each.first, each.second).p_value for each in hypotheses])
    print("| comparison | problems | first, % | second, % | difference, points | won, lost | p | p, Holm |")
    print("|:--|--:|--:|--:|--:|--:|--:|--:|")
    for each, p in zip(hypotheses, corrected, strict=True):
        print(row(each, p_value(p)))
    for each in not_planned(few):
        print(row(each, "not planned"))
    print(f"\n{versions()}")


if __name__ == "__main__":
    main()
