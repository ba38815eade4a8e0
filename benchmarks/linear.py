"""The product of a few rows with a weight matrix on a CPU: packed once, beside torch's.

    python benchmarks/linear.py [--features 576 1536 49152] [--inputs 576] [--rows 2 8 24 64 256]

Prints milliseconds and their ratio (ours over torch's) per shape, medians over interleaved rounds. Absolute
times are this machine's; only the ratios are worth comparing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from lm_eval_eglr.decoding.model.packed_weights import packed_linear

WEIGHTS = 4  # used in turn, as layers are, so that they do not stay in the cache


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=576)
    parser.add_argument("--features", type=int, nargs="+", default=[576, 1536, 49152])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 24, 64, 256])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.inputs} inputs, fp32")
    print(f"{'rows':>5} {'features':>9} {'torch ms':>9} {'ours ms':>9} {'ratio':>6}")
    for features in options.features:
        weights = [torch.randn(features, options.inputs) for _ in range(WEIGHTS)]
        packed = [packed_linear(weight) for weight in weights]
        for rows in options.rows:
            x = torch.randn(rows, options.inputs)
            theirs, ours = [], []
            for number in range(options.rounds + 1):
                weight, call = weights[number % WEIGHTS], packed[number % WEIGHTS]
                theirs.append(_seconds(lambda x=x, w=weight: F.linear(x, w)))
                ours.append(_seconds(lambda x=x, call=call: call(x)))
            their, our = statistics.median(theirs[1:]), statistics.median(ours[1:])
            print(f"{rows:5} {features:9} {1e3 * their:9.2f} {1e3 * our:9.2f} {our / their:6.2f}")


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    with torch.no_grad():
        main()
