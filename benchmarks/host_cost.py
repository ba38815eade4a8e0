"""What the engine costs beside the model: processor time per drawn token, as a ratio to an earlier commit.

    python benchmarks/host_cost.py [--commit a2b57af] [--rounds 3]

The stub-sized model of the soak test (two layers of 16, 64 tokens) decodes 16 prompts × 16 rollouts in 256
rows, on one thread. Time inside the model's decoder and its head is taken out; what is left is scheduling,
recursion, distributions, draws, telemetry and bookkeeping. The other commit is unpacked with ``git
archive`` and measured in turns with this tree, each round in a process of its own, so that the ratio holds
on a busy machine. Prints medians over the rounds:

    microseconds of processor time outside the model per drawn token, here and there, and their ratio
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROWS = 256
PROMPTS = 16
TOKENS = 100
CASES = {
    "temperatures only": {"spans": "0", "temperatures": "1x16"},
    "grid, 20 % gated": {"spans": "0:1", "temperatures": "1x8"},
}
TARGETS = {"temperatures only": 8.0, "grid, 20 % gated": 15.0}


@contextmanager
def timed(modules: list[Any], clock: list[float]) -> Iterator[None]:
    """Adds up the processor time that is spent in the forward of some modules."""

    def wrapped(forward: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return forward(*args, **kwargs)
            finally:
                clock[0] += time.process_time() - start

        return call

    for module in modules:
        module.forward = wrapped(module.forward)
    try:
        yield
    finally:
        for module in modules:
            del module.__dict__["forward"]


def measure(case: str) -> float:
    """Microseconds of processor time outside the model per drawn token."""
    import torch
    from models_and_prompts import stub_model, stub_tokenizer

    from lm_eval_eglr.calibration import calibrate
    from lm_eval_eglr.decoding import PoolDecoder

    torch.set_num_threads(1)
    model, tokenizer = stub_model(), stub_tokenizer()
    prompts = [chr(48 + number) * (4 + number % 5) for number in range(PROMPTS)]

    def decode(tokens: int, **options: Any) -> Any:
        decoder = PoolDecoder(model, tokenizer, max_rows=ROWS, max_length=256, **options)
        return decoder.generate(prompts, max_new_tokens=tokens, progress=False)

    pools = decode(20, spans="0", temperatures="1x4", trace=True)
    options = {**CASES[case], "entropy_threshold": calibrate(pools, 0.2).threshold}
    decode(4, **options)
    clock = [0.0]
    with timed([model.get_decoder(), model], clock):  # the head is what the model itself runs besides
        start = time.process_time()
        pools = decode(TOKENS, **options)
        spent = time.process_time() - start
    return 1e6 * (spent - clock[0]) / sum(len(rollout.tokens) for pool in pools for rollout in pool)


def child(root: Path, case: str) -> float:
    """:func:`measure` in a process of its own, with the packages of a tree."""
    paths = os.pathsep.join((str(root), str(root / "selectors")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "LM_EVAL_EGLR_AUTOLOAD": "0"}
    command = [sys.executable, __file__, "--measure", case]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=root)
    if done.returncode:
        sys.exit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commit", default="a2b57af")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=list(CASES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    here = Path(__file__).resolve().parents[1]
    print(f"{'':20} {'here, µs':>9} {options.commit + ', µs':>12} {'times less':>11} {'target, µs':>11}")
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", options.commit], cwd=here, capture_output=True, check=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        for case in CASES:
            rounds = [(child(here, case), child(Path(folder), case)) for _ in range(options.rounds)]
            ours, theirs = (statistics.median(each) for each in zip(*rounds, strict=True))
            ratio = statistics.median(there / ours for ours, there in rounds)
            print(f"{case:20} {ours:9.1f} {theirs:12.1f} {ratio:11.1f} {TARGETS[case]:11.1f}", flush=True)


if __name__ == "__main__":
    main()
