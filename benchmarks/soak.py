"""A long run with a stub-sized model: memory stays flat and speed constant.

    python benchmarks/soak.py --prompts 20000 --rollouts 16 --tokens 4

Everything but the model is real: admission, the rollout tree, recursion, draws, telemetry, retirement and
the store. Exits with 1 if the last tenth of the run needs more memory, or more time per pool, than the
second tenth by more than the given shares.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from models_and_prompts import stub_model, stub_tokenizer

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.pool_decoder import DocumentKeys
from lm_eval_eglr.decoding.request import Request
from lm_eval_eglr.decoding.stopping import StopRule
from lm_eval_eglr.store import Manifest, PoolKey, StoreWriter


def requests(decoder: PoolDecoder, prompts: int, tokens: int) -> Iterator[Request]:
    """Prompts of 4 to 12 tokens, each of its own."""
    keys = DocumentKeys()
    for number in range(prompts):
        length = 4 + number % 9
        prompt = [(number >> shift) % 64 for shift in range(length)]
        yield decoder.request(
            prompt, decoder.cells, tokens, StopRule(), keys.key(prompt, str(number)), prompt=str(number)
        )


def main() -> int:
    """Runs, prints one JSON object, and says whether the run was flat."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--rollouts", type=int, default=16, help="rollouts per prompt, a multiple of 4")
    parser.add_argument("--tokens", type=int, default=4, help="tokens per rollout")
    parser.add_argument("--rows", type=int, default=1024, help="rows decoded at once")
    parser.add_argument("--store", action="store_true", help="also write every pool to a store")
    parser.add_argument("--memory", type=float, default=0.1, help="accepted growth of memory, a share")
    parser.add_argument("--speed", type=float, default=0.5, help="accepted growth of seconds, a share")
    options = parser.parse_args()

    decoder = PoolDecoder(
        stub_model(),
        stub_tokenizer(),
        spans="0:1",
        temperatures=f"0:1x{options.rollouts // 2 - 1}",
        entropy_threshold=3.0,
        max_rows=options.rows,
    )
    process = psutil.Process()
    marks: list[tuple[float, float]] = []  # seconds of processor time, MB, at each tenth
    with tempfile.TemporaryDirectory() as folder:
        writer = StoreWriter(Path(folder))
        with writer.writing(Manifest({"model": "stub"})):
            pools = decoder.decode(requests(decoder, options.prompts, options.tokens))
            begun = time.monotonic()
            for count, (number, pool) in enumerate(pools):
                if options.store:
                    writer.append(PoolKey("soak", number), pool)
                if count * 10 // options.prompts >= len(marks):
                    used = process.cpu_times()
                    marks.append((used.user + used.system, process.memory_info().rss / 1e6))
    used = process.cpu_times()
    marks.append((used.user + used.system, process.memory_info().rss / 1e6))
    seconds = [after[0] - before[0] for before, after in itertools.pairwise(marks)]
    memory = [megabytes for _, megabytes in marks]
    flat = {
        "memory": memory[-1] <= memory[2] * (1 + options.memory),
        "speed": seconds[-1] <= seconds[1] * (1 + options.speed),
    }
    report = {
        "prompts": options.prompts,
        "rollouts": options.prompts * len(decoder.cells),
        "minutes": round((time.monotonic() - begun) / 60, 2),
        "processor_seconds_per_tenth": [round(each, 1) for each in seconds],
        "megabytes_per_tenth": [round(each) for each in memory],
        "flat": flat,
    }
    print(json.dumps(report, indent=2))
    return 0 if all(flat.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
