"""Puts the curves of several runs of ``train.py`` into one Markdown table: means over seeds, in percent.

python examples/grpo/table.py /tmp/grpo/*/curve.csv
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

SHOWN = {"reward": 100, "validation_sampled": 100, "validation_greedy": 100, "kl_recursed": 1}
"""Columns, and what they are multiplied by."""


def cell(values: list[float], scale: int) -> str:
    """A mean, with the standard error over seeds where there are several."""
    if not values:
        return ""
    digits = 1 if scale == 100 else 3
    error = f" ± {scale * stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
    return f"{scale * mean(values):.{digits}f}{error}"


def table(paths: list[Path]) -> str:
    """The table; rewards are means over the steps since the row before."""
    groups: dict[tuple[str, int], list[dict[str, str]]] = defaultdict(list)
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                groups[row["rollouts"], int(row["step"])].append(row)
    lines = ["| rollouts | step | seeds | " + " | ".join(SHOWN) + " |", "| --- " * (3 + len(SHOWN)) + "|"]
    for (rollouts, step), rows in sorted(groups.items()):
        cells = [
            cell([float(row[name]) for row in rows if row[name]], scale) for name, scale in SHOWN.items()
        ]
        lines.append(" | ".join([f"| {rollouts}", str(step), str(len(rows)), *cells]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table([Path(name) for name in sys.argv[1:]]))
