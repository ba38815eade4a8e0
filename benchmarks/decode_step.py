"""Where the time of a decode step goes: matrix products, attention, recursion, everything else.

    EGLR_DATA_DIR=... python benchmarks/decode_step.py --model FOLDER [--gguf FILE]

For each gate rate (the share of plain tokens whose entropy exceeds the threshold) it decodes the grid once
and prints, as shares of the time of all steps without prefill:

    linear       the products of the model's linear layers, plain and recursed
    attention    attention, plain and recursed
    other        everything else: norms, rotations, distributions, draws, bookkeeping

and two ratios of the recursion's time to what its share of the plain pass would cost:

    per layer-token   recursion seconds / (plain seconds x recursed layer-tokens / plain layer-tokens)
    per FLOP          the same with the unembedding of each iteration counted in

On a small model an unembedding costs as much as several layers, and each iteration needs one.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from throughput import TEMPERATURE, load_model, load_prompts
from transformers import AttentionInterface

from lm_eval_eglr.decoding import PoolDecoder, attention, cpu_linear

Clock = Counter[str]


def timed(clock: Clock, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose seconds are added up under a name."""

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            clock[name] += time.perf_counter() - start  # type: ignore[assignment]

    return call


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--gguf")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu", choices=["cpu"])
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--spans", default="0:2:4:8")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--gate-rates", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.5])
    options = parser.parse_args()
    model, tokenizer = load_model(options)
    prompts = load_prompts(tokenizer, options.prompts)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.dtype}")
    print(f"{'gate':>5} {'linear':>7} {'attention':>9} {'other':>6} {'per layer-token':>16} {'per FLOP':>9}")
    entropies = _entropies(model, tokenizer, prompts, options)
    for rate in options.gate_rates:
        threshold = float(entropies.quantile(1 - rate)) if rate else 1e9
        print(_measure(model, tokenizer, prompts, options, threshold, rate), flush=True)


def _entropies(model: Any, tokenizer: Any, prompts: list[str], options: argparse.Namespace) -> torch.Tensor:
    decoder = PoolDecoder(model, tokenizer, spans="0", temperatures=[TEMPERATURE] * 4, trace=True)
    pools = decoder.generate(prompts, max_new_tokens=options.max_new_tokens, progress=False)
    return torch.tensor([h for pool in pools for rollout in pool for h in rollout.telemetry.token_entropies])


def _measure(
    model: Any, tokenizer: Any, prompts: list[str], options: argparse.Namespace, threshold: float, rate: float
) -> str:
    clock: Clock = Counter()
    decoder = PoolDecoder(
        model,
        tokenizer,
        spans=options.spans,
        temperatures=[0.0] + [TEMPERATURE] * 3,
        entropy_threshold=threshold,
        max_rows=options.rows,
    )
    engine = decoder.engine
    names = ("step", "_forward", "_refine", "_prefill")
    before = {name: getattr(engine, name) for name in names}
    for name in names:
        setattr(engine, name, timed(clock, name, before[name]))
    prefill: Clock = Counter()

    def prefilling(admitted: Any) -> None:
        start = clock.copy()
        timed(clock, "_prefill", before["_prefill"])(admitted)
        for part in ("linear", "attention"):
            prefill[part] += clock[part] - start[part]

    engine._prefill = prefilling  # type: ignore[method-assign]
    linear = cpu_linear._forward
    cpu_linear._forward = timed(clock, "linear", linear)
    AttentionInterface.register(attention.NAME, timed(clock, "attention", attention.row_attention))
    try:
        pools = decoder.generate(prompts, max_new_tokens=options.max_new_tokens, progress=False)
    finally:
        cpu_linear._forward = linear
        AttentionInterface.register(attention.NAME, attention.row_attention)
    products = clock["linear"] - prefill["linear"]
    attending = clock["attention"] - prefill["attention"]
    total = clock["step"]
    shares = [products / total, attending / total, 1 - (products + attending) / total]
    costs = [pool.cost for pool in pools]
    rows = sum(cost.rows for cost in costs)
    recursed = sum(cost.recursion_layer_tokens for cost in costs)
    heads = sum(cost.head_evaluations for cost in costs) - rows
    depth = decoder.stack.depth
    layer, head = decoder.stack.layer_parameters(), decoder.stack.head_parameters()
    per_token = per_flop = float("nan")
    if recursed:
        per_token = clock["_refine"] / (clock["_forward"] * recursed / (depth * rows))
        flops = (recursed * layer + heads * head) / (rows * (depth * layer + head))
        per_flop = clock["_refine"] / (clock["_forward"] * flops)
    parts = f"{shares[0]:7.2f} {shares[1]:9.2f} {shares[2]:6.2f}"
    return f"{rate:5.2f} {parts} {per_token:16.2f} {per_flop:9.2f}"


if __name__ == "__main__":
    main()
