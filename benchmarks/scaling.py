"""What twice the problems, twice the rollouts and twice the length cost.

    EGLR_DATA_DIR=... python benchmarks/scaling.py --model FOLDER [--gguf FILE] [--lengths 64 128 256]

Prints the seconds of each run over those of the run before it. End tokens are not obeyed, so that every
rollout has exactly the length that is asked for.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch
from models_and_prompts import TEMPERATURE, load_model, load_prompts, model_parser

from lm_eval_eglr.decoding import PoolDecoder


def main() -> None:
    parser = model_parser(__doc__)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--problems", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--rollouts", type=int, nargs="*", default=[8, 16])
    parser.add_argument("--lengths", type=int, nargs="*", default=[64, 128, 256])
    options = parser.parse_args()
    model, tokenizer = load_model(options)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.dtype}, {options.rows} rows"
    )

    def run(problems: int, rollouts: int, length: int) -> float:
        return _seconds(model, tokenizer, options.rows, problems, rollouts, length)

    run(1, options.rows, 8)
    _series("problems", {n: run(n, 16, 32) for n in options.problems})
    _series("rollouts", {n: run(2, n, 32) for n in options.rollouts})
    _series("length", {n: run(1, options.rows, n) for n in options.lengths})


def _series(name: str, seconds: dict[int, float]) -> None:
    sizes = list(seconds)
    for small, large in itertools.pairwise(sizes):
        ratio = seconds[large] / seconds[small]
        print(
            f"{name:9} {small:5} -> {large:5} ({large / small:.2g} x): {ratio:.2f} x the seconds", flush=True
        )


def _seconds(model: Any, tokenizer: Any, rows: int, problems: int, rollouts: int, length: int) -> float:
    decoder = PoolDecoder(
        model, tokenizer, spans="0", temperatures=[TEMPERATURE] * rollouts, max_rows=rows, max_length=10**6
    )
    decoder.engine.end_tokens = frozenset()
    prompts = load_prompts(tokenizer, problems)
    start = time.perf_counter()
    decoder.generate(prompts, max_new_tokens=length, progress=False)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
