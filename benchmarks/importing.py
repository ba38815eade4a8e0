"""Processor time, peak memory and disk of `eglr import`, from 16 invented texts of 70 words for each problem.

    python benchmarks/importing.py [--problems 2000]

The import runs in a process of its own, whose processor time includes the start of the interpreter.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

TEXTS = 16
WORDS = ("so", "we", "add", "the", "number", "to", "get", "then", "twice", "half", "of", "it")


def main() -> None:
    """Prints one row of the table in docs/tutorials/other_backends.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=2000)
    count = parser.parse_args().problems
    with tempfile.TemporaryDirectory() as scratch:
        source, store = Path(scratch) / "rollouts.jsonl", Path(scratch) / "store"
        write(source, count)
        command = [sys.executable, "-m", "lm_eval_eglr.cli", "import", str(source), "-o", str(store)]
        subprocess.run(command, check=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        files = [path.stat() for path in store.rglob("*") if path.is_file()]
    seconds = used.ru_utime + used.ru_stime
    peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print("problems | processor time, s | ms per problem | peak memory, MB | store, MB | on the disk, MB")
    size, disk = sum(each.st_size for each in files), sum(each.st_blocks * 512 for each in files)
    print(
        f"{count:,} | {seconds:.1f} | {1000 * seconds / count:.1f} | {peak:.0f} | {size / 1e6:.0f} | "
        f"{disk / 1e6:.0f}"
    )


def write(path: Path, count: int) -> None:
    """Writes the source, a problem a line."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            a, b = rng.randrange(1000), rng.randrange(1000)
            texts = [
                f"First take {a} and {b}. {' '.join(rng.choices(WORDS, k=60))}. "
                f"So \\boxed{{{a + b + (rng.random() < 0.4)}}}"
                for _ in range(TEXTS)
            ]
            line = {"prompt": f"What is {a} + {b}?", "texts": texts, "reference": str(a + b)}
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
