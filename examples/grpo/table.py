"""Puts the curves of several runs of ``train.py`` into two Markdown tables, in percent.

    python examples/grpo/table.py /tmp/grpo/*/curve.csv

The first has means over seeds, with standard errors over them. The second has what each run gained, with its
standard error over validation problems: those before and after are the same, so the error is of differences.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

SHOWN = {
    "reward": (100, 1),
    "validation_sampled": (100, 1),
    "validation_greedy": (100, 1),
    "recursed_tokens": (100, 1),
    "kl_recursed": (1, 3),
    "clipped_tokens": (100, 2),
}
"""Columns: what they are multiplied by, and their digits. What cannot be measured is empty."""
Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """The rows of a curve."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise SystemExit(f"{path}: expected the curve of a run of train.py, it has no rows")
    return rows


def cell(values: list[float], scale: int, digits: int) -> str:
    """A mean, with the standard error over seeds where there are several."""
    if not values:
        return ""
    error = f" ± {scale * stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
    return f"{scale * mean(values):.{digits}f}{error}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def curves(runs: list[list[Row]]) -> str:
    """Means over seeds; rewards, and what is known of the rollouts, are of the steps since the row before."""
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in (row for run in runs for row in run):
        groups[row["rollouts"], int(row["step"])].append(row)
    lines = [
        [rollouts, str(step), str(len(rows))]
        + [cell([float(row[name]) for row in rows if row[name]], *shape) for name, shape in SHOWN.items()]
        for (rollouts, step), rows in sorted(groups.items())
    ]
    return markdown(["rollouts", "step", "seeds", *SHOWN], lines)


def gains(runs: list[list[Row]]) -> str:
    """What each run gained from its first row to its last, in points and in standard errors."""
    lines = []
    for run in sorted(runs, key=lambda run: (run[-1]["rollouts"], int(run[-1]["seed"]))):
        last = run[-1]
        line = [last["rollouts"], last["seed"], last["step"], last["cpu_seconds"]]
        for name in ("rise", "greedy_rise"):
            value, error = float(last[name]), float(last[f"{name}_error"])
            errors = f" ({value / error:+.1f} errors)" if error else ""
            line.append(f"{100 * value:+.1f} ± {100 * error:.1f}{errors}")
        lines.append(line)
    return markdown(["rollouts", "seed", "steps", "cpu_seconds", "samples", "greedy"], lines)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    found = [read(Path(name)) for name in sys.argv[1:]]
    print(curves(found), gains(found), sep="\n\n")
