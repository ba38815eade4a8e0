"""What it saves that the rows of a pool attend to their prompt together.

    python benchmarks/shared_prompts.py --model FOLDER [--gguf FILE] [--lengths 128 256 512 1024]

Pools of prompts of a length, decoded with each row holding its prompt and with the prompt held once, in
turns, by processor time; and the keys and values that were held at most. Prompts are random tokens, and end
tokens are not obeyed.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch
from models_and_prompts import TEMPERATURE, load_model, model_parser

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.model.runner import RunBatch
from lm_eval_eglr.decoding.stopping import StopRule


def main() -> None:
    parser = model_parser(__doc__, devices=["cpu"])
    parser.add_argument("--lengths", type=int, nargs="*", default=[128, 256, 512, 1024], help="tokens")
    parser.add_argument("--problems", type=int, default=4)
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model, tokenizer = load_model(options)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.dtype}, "
        f"{options.problems} prompts x {options.rollouts} rollouts x {options.tokens} tokens"
    )
    print(
        f"{'prompt, tokens':>14} {'each, s':>9} {'once, s':>9} {'ratio':>6} {'each, MB':>9} {'once, MB':>9}"
    )
    for length in options.lengths:
        runs = [_Run(model, tokenizer, options, length, once) for once in (False, True)]
        for _ in range(options.rounds):
            for run in runs:
                run.measure()
        each, once = (median(run.seconds) for run in runs)
        sizes = [run.bytes / 1e6 for run in runs]
        print(
            f"{length:14} {each:9.2f} {once:9.2f} {each / once:6.2f} {sizes[0]:9.0f} {sizes[1]:9.0f}",
            flush=True,
        )


class _Run:
    """Decodes the same pools again and again."""

    def __init__(self, model: Any, tokenizer: Any, options: Any, length: int, once: bool) -> None:
        temperatures = [TEMPERATURE] * options.rollouts
        rows = options.problems * options.rollouts
        self._decoder = decoder = PoolDecoder(
            model, tokenizer, spans="0", temperatures=temperatures, max_rows=rows, max_length=10**6
        )
        decoder.engine.end_tokens = frozenset()
        decoder.engine.prompts.shared = once
        self._make, decoder.engine.make_runner = decoder.engine.make_runner, self._watched
        torch.manual_seed(length)
        prompts = torch.randint(10, len(tokenizer) - 10, (options.problems, length)).tolist()
        self._requests = [
            decoder.request(prompt, decoder.cells, options.tokens, StopRule(), f"d{number}")
            for number, prompt in enumerate(prompts)
        ]
        self.seconds: list[float] = []
        self.bytes = 0

    def measure(self) -> None:
        start = time.process_time()
        for _ in self._decoder.decode(self._requests):
            pass
        self.seconds.append(time.process_time() - start)

    def _watched(self, stack: Any, cache: KVCache) -> RunBatch:
        run = self._make(stack, cache)

        def watched(batch: Any) -> Any:
            own, shared = batch.live * batch.columns.max(), 0
            if batch.shares_prompts:
                slots, begins = batch.prompts
                shared = len(set(slots.tolist())) * begins.max()
            size = sum(cache.bytes_per_token.values())
            self.bytes = max(self.bytes, int((own + shared) * size))
            return run(batch)

        return watched


if __name__ == "__main__":
    main()
