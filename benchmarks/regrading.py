"""Times what `eglr select` does anew each time: reading pools, their answers, and grades.

    EGLR_DATA_DIR=... python benchmarks/regrading.py [rollouts]

Pools of 64 rollouts of every problem of MATH-500, whose answers are the reference, respelled, or wrong: the
references of other problems, other digits, the other sign. Their texts are short, so that grading is what
takes time; everything is drawn from a fixed seed.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from eglr_selectors import Rollout, RolloutPool

from lm_eval_eglr.store import Manifest, PoolKey, StoreWriter, read_store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "grading"))
from respellings import respellings

WRONG = 6
DIGITS = str.maketrans("0123456789", "1234567890")


def main() -> None:
    """Prints seconds by the clock, the grader's processes included."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    folder = os.environ.get("EGLR_DATA_DIR")
    if not folder:
        sys.exit("EGLR_DATA_DIR: set it to a folder that holds math500.jsonl")
    lines = (Path(folder) / "math500.jsonl").read_text(encoding="utf-8").splitlines()
    references = [str(json.loads(line)["answer"]) for line in lines]
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "store"
        write(store, references, count)
        start = time.perf_counter()
        opened = read_store(store)
        read = time.perf_counter()
        documents = opened.documents("math")
        grades = [document.parsed.correct for document in documents]
        graded = time.perf_counter()
    pairs = {(each.parsed.reference, a.text) for each in documents for a in each.parsed.answers if a}
    ungraded = sum(grade is None for row in grades for grade in row)
    print(f"{len(documents)} pools of {count}: read in {read - start:.1f} s, graded in {graded - read:.1f} s")
    print(f"{len(pairs)} distinct pairs of reference and answer, {ungraded} rollouts ungraded")


def write(folder: Path, references: list[str], count: int) -> None:
    """Writes the store."""
    rng = random.Random(0)
    writer = StoreWriter(folder)
    with writer.writing(Manifest({"model": "answers"})):
        for number, reference in enumerate(references):
            right = [reference, reference, *list(respellings(reference))[:6]]
            wrong = [*rng.sample(references, WRONG), reference.translate(DIGITS), f"-{reference}"]
            hard = rng.random()
            texts = [rng.choice(right if rng.random() > hard else wrong) for _ in range(count)]
            pool = RolloutPool(tuple(Rollout(rf"so it is \boxed{{{text}}}") for text in texts), str(number))
            writer.append(PoolKey("math", number, document=f"{number}:0", reference=reference), pool)


if __name__ == "__main__":
    main()
