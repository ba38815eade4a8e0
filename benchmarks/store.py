"""Compares the two candidates for the rollout store: Parquet, one file per pool, and JSONL with zstd frames.

    python benchmarks/store.py [--problems 500] [--rollouts 64] [--tokens 500]

Prints size, append and read times and their ratios. Pools are synthetic: words and token ids drawn from a
Zipf distribution, telemetry of 32-bit precision as a model gives it. Both formats are synced per pool.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
from eglr_selectors import Cell, PoolCost, Rollout, RolloutPool, Telemetry, rollout_from_record

from lm_eval_eglr.store.pool_file import decode, encode
from lm_eval_eglr.store.pool_key import PoolKey

VOCABULARY = 49_152


def synthetic_pools(problems: int, rollouts: int, tokens: int) -> Iterator[tuple[PoolKey, RolloutPool]]:
    """Yields pools one by one: 150 different words or so per pool, as a solution has."""
    rng = np.random.default_rng(0)
    words = np.array(
        ["".join(map(chr, rng.integers(97, 123, rng.integers(1, 8)))) for _ in range(VOCABULARY)]
    )
    for number in range(problems):
        usual = rng.zipf(1.3, 4 * tokens) % VOCABULARY
        made = []
        for place in range(rollouts):
            ids = rng.choice(usual, tokens)
            values = rng.random(3).astype(np.float32).tolist()
            telemetry = Telemetry(*values, 100, 250, 90, 30 * tokens, 800, tokens + 250)
            made.append(
                Rollout(
                    " ".join(words[ids]),
                    Cell((0, 2, 4, 8)[place % 4], 0.7, place // 4),
                    "stop",
                    tuple(ids.tolist()),
                    telemetry,
                )
            )
        prompt = " ".join(words[rng.choice(usual, 120)])
        head = PoolKey("synthetic", number, document=f"{number}:0", reference="42", fields={"id": number})
        yield head, RolloutPool(tuple(made), prompt, PoolCost(120, rollouts * tokens, rollouts * tokens))


def write_synced(path: Path, data: bytes, mode: str) -> None:
    """Writes and syncs, so that neither format profits from the page cache."""
    with path.open(mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class Parquet:
    """The store's own files."""

    name = "parquet"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, head: PoolKey, pool: RolloutPool) -> None:
        """Writes one file."""
        name, data = encode(head, pool)
        write_synced(self.folder / name, data, "wb")

    def read(self) -> int:
        """Reads everything back as pools; returns the number of rollouts."""
        return sum(len(decode(path)[1]) for path in self.folder.iterdir())

    def read_texts(self) -> int:
        """Reads the texts alone, as re-selection by votes does."""
        return len(pandas.read_parquet(self.folder, columns=["doc_id", "text", "reference"]))


class Jsonl:
    """One line per rollout, one zstd frame per pool, all in one file."""

    name = "jsonl + zstd"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "rollouts.jsonl.zst"
        self.codec = pa.Codec("zstd", 6)

    def append(self, head: PoolKey, pool: RolloutPool) -> None:
        """Appends one frame, its length before it."""
        shared = {**head.to_columns(), "prompt": pool.prompt, "cost": dataclasses.asdict(pool.cost)}
        lines = "\n".join(json.dumps({**shared, **record}) for record in pool.to_records()).encode()
        frame = self.codec.compress(lines, asbytes=True)
        write_synced(self.path, b"%d %d\n" % (len(frame), len(lines)) + frame, "ab")

    def _lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while header := file.readline():
                size, plain = map(int, header.split())
                yield from self.codec.decompress(file.read(size), plain, asbytes=True).split(b"\n")

    def read(self) -> int:
        """Reads everything back as rollouts."""
        return sum(bool(rollout_from_record(json.loads(line))) for line in self._lines())

    def read_texts(self) -> int:
        """Reads the texts alone; every line is parsed for it."""
        return len([json.loads(line)["text"] for line in self._lines()])


def measure(kind: type, folder: Path, sizes: tuple[int, int, int]) -> dict[str, float]:
    """Writes and reads one format; times are seconds, of appending only the appending."""
    store, appending = kind(folder), 0.0
    for head, pool in synthetic_pools(*sizes):
        start = time.perf_counter()
        store.append(head, pool)
        appending += time.perf_counter() - start
    figures = {"MB": sum(path.stat().st_size for path in folder.iterdir()) / 1e6, "append s": appending}
    for name, action in (("read all s", store.read), ("read texts s", store.read_texts)):
        start = time.perf_counter()
        assert action() == sizes[0] * sizes[1]
        figures[name] = time.perf_counter() - start
    return figures


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("problems", 500), ("rollouts", 64), ("tokens", 500)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    sizes = (options.problems, options.rollouts, options.tokens)
    table = {}
    for kind in (Parquet, Jsonl):
        with tempfile.TemporaryDirectory() as folder:
            table[kind.name] = measure(kind, Path(folder), sizes)
    ratios = {key: table["jsonl + zstd"][key] / table["parquet"][key] for key in table["parquet"]}
    table["jsonl + zstd / parquet"] = ratios
    print(pandas.DataFrame(table).T.round(2).to_markdown())


if __name__ == "__main__":
    main()
