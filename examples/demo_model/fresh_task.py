"""Makes a task of problems that nothing was tuned on: for confirmations of what other problems suggested.

    python examples/demo_model/fresh_task.py demo_fresh --count 2000 --seed 1 --out fresh
    eglr study demo --tasks demo_fresh --include-path fresh --out fresh/study

writes ``fresh/demo_fresh.jsonl`` and ``fresh/demo_fresh.yaml``. The problems are of the testing part, so none
is in the model's training data, and none has the numbers of a problem of ``demo_eglr``; with
``--split validation`` they are of the validation part, for choosing.
"""

from __future__ import annotations

import argparse
import json
from itertools import cycle
from pathlib import Path

from word_problems import OPERATIONS, WordProblem, as_row, held_out, problems

from lm_eval_eglr.paths import tasks_folder


def fresh(count: int, seed: int, split: str) -> list[WordProblem]:
    """Problems of a split with other numbers than those of ``demo_eglr`` and than each other's."""
    seen = {each.numbers for each in held_out()}
    chosen: list[WordProblem] = []
    stream = problems(split, seed)  # type: ignore[arg-type]
    wanted = cycle(OPERATIONS)
    operations = next(wanted)
    while len(chosen) < count:
        each = next(stream)
        if each.operations == operations and each.numbers not in seen:
            seen.add(each.numbers)
            chosen.append(each)
            operations = next(wanted)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="name of the task")
    parser.add_argument("--count", type=int, default=2000, help="number of problems")
    parser.add_argument("--seed", type=int, default=1, help="seed of the generator; demo_eglr has 2026")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--out", type=Path, default=Path("fresh"), help="folder of the task")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error(f"--count {arguments.count}: expected an integer >= 1")
    chosen = fresh(arguments.count, arguments.seed, arguments.split)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps(as_row(number, each)) for number, each in enumerate(chosen, 1)]
    (arguments.out / f"{arguments.name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    lines = [
        f"task: {arguments.name}",
        f"include: {tasks_folder() / 'demo' / 'demo_eglr.yaml'}",
        "dataset_kwargs:",
        f"  file: {arguments.name}.jsonl",
        f"  rows: {len(rows)}",
    ]
    (arguments.out / f"{arguments.name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {len(rows)} problems to {arguments.out / arguments.name}.jsonl, and {arguments.name}.yaml")


if __name__ == "__main__":
    main()
