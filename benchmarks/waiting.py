"""How long rows wait for those that are being recursed: what the engine's rule costs beside fixed shares.

    python benchmarks/waiting.py --model FOLDER [--gguf FILE] [--shares 0.5 0.6 0.7 0.8 0.9]

One grid is decoded by the rule (``recursions_run_alone`` in decoding/model/runner.py, which follows from the
model's layers and head) and with rows that wait until a share of all live ones is ready, in turns. The gate
opens at a fifth of the tokens, as measured on plain rollouts of the same prompts. Prints the passes of each,
those of recursions alone among them, and the median of the processor time. The rollouts are the same, up to
what rounding decides.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from models_and_prompts import TEMPERATURE, load_model, load_prompts, model_parser

from lm_eval_eglr.calibration import calibrate
from lm_eval_eglr.decoding import PoolDecoder, engine
from lm_eval_eglr.decoding.model.runner import recursions_run_alone

GATED = 0.2
Rule = Callable[[int, int, float, float], bool]


def main() -> None:
    parser = model_parser(__doc__)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.5, 0.6, 0.7, 0.8, 0.9])
    parser.add_argument("--spans", default="0:2:4:8")
    parser.add_argument("--samples", type=int, default=4, help="of each span")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model, tokenizer = load_model(options)
    prompts = load_prompts(tokenizer, options.prompts)
    common: dict[str, Any] = {"temperatures": f"{TEMPERATURE}x{options.samples}", "max_rows": options.rows}

    plain = PoolDecoder(model, tokenizer, spans="0", trace=True, **common)
    pools = plain.generate(prompts, max_new_tokens=options.tokens, progress=False)
    threshold = calibrate(pools, GATED).threshold
    decoder = PoolDecoder(model, tokenizer, spans=options.spans, entropy_threshold=threshold, **common)

    rules: dict[str, Rule] = {"the rule": recursions_run_alone}
    rules |= {f"{share:.2f}": fixed(share) for share in options.shares}
    seconds: dict[str, list[float]] = {name: [] for name in rules}
    passes: dict[str, Counter[str]] = {}
    measure(decoder, prompts, options.tokens, recursions_run_alone, Counter())  # the first run takes longer
    for _ in range(options.rounds):
        for name, rule in rules.items():
            passes[name] = Counter()
            seconds[name].append(measure(decoder, prompts, options.tokens, rule, passes[name]))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.dtype}, "
        f"{options.prompts} prompts, spans {options.spans}, {options.tokens} tokens, {options.rows} rows, "
        f"gate at {threshold:.3f} nats"
    )
    print(f"{'rows ready':>12} {'passes':>8} {'recursions alone':>17} {'seconds':>9} {'over the rule':>14}")
    ours = median(seconds["the rule"])
    for name, times in seconds.items():
        took, counts = median(times), passes[name]
        print(f"{name:>12} {counts['all']:8} {counts['alone']:17} {took:9.2f} {took / ours:14.2f}")


def fixed(share: float) -> Rule:
    """Rows wait until that share of the live ones is ready."""
    return lambda starting, live, full, alone: starting < share * live


def measure(decoder: Any, prompts: list[str], tokens: int, rule: Rule, passes: Counter[str]) -> float:
    """Processor time of decoding by a rule."""
    make = decoder.engine.make_runner

    def counting(stack: Any, cache: Any) -> Any:
        run = make(stack, cache)

        def counted(batch: Any) -> Any:
            passes["all"] += 1
            passes["alone"] += not batch.starting
            return run(batch)

        return counted

    decoder.engine.make_runner = counting
    try:
        with patch.object(engine, "recursions_run_alone", rule):
            start = time.process_time()
            decoder.generate(prompts, max_new_tokens=tokens, progress=False)
            return time.process_time() - start
    finally:
        decoder.engine.make_runner = make


if __name__ == "__main__":
    main()
