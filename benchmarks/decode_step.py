"""Where the time of a decode step goes: matrix products, attention, recursion, everything else.

    EGLR_DATA_DIR=... python benchmarks/decode_step.py --model FOLDER [--gguf FILE]
    EGLR_DATA_DIR=... python benchmarks/decode_step.py --model FOLDER --compiled

For each gate rate (the share of plain tokens whose entropy exceeds the threshold) it decodes the grid once
and prints, as shares of the time of all steps without prefill:

    linear       the products of the model's linear layers, plain and recursed
    attention    attention, plain and recursed
    other        everything else: norms, rotations, distributions, draws, bookkeeping

and two ratios of the recursion's time to what its work would cost at the price of a plain token. Recursions
run beside plain rows, so their time is what a row takes longer than at rate 0, which is measured first:

    per layer-token   recursion seconds / (plain seconds x recursed layer-tokens / plain layer-tokens)
    per FLOP          the same with the unembedding of each iteration counted in

On a small model an unembedding costs as much as several layers, and each iteration needs one.

With --compiled it decodes temperatures alone instead, with layers as they are and compiled, in turns, and
prints processor time per drawn token (one thread) for both, their ratio, and the seconds that compiling took.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from models_and_prompts import TEMPERATURE, load_model, load_prompts, model_parser

from lm_eval_eglr.calibration import calibrate
from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.model import packed_weights
from lm_eval_eglr.decoding.model.attention import Past
from lm_eval_eglr.decoding.model.shared_past import SharedPast

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
    parser = model_parser(__doc__, devices=["cpu"])  # its clocks do not wait for a GPU
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--spans", default="0:2:4:8")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--gate-rates", type=float, nargs="+", default=[0.1, 0.2, 0.5])
    parser.add_argument("--compiled", action="store_true", help="compare layers with compiled ones")
    parser.add_argument("--rounds", type=int, default=3, help="of --compiled")
    options = parser.parse_args()
    model, tokenizer = load_model(options)
    prompts = load_prompts(tokenizer, options.prompts)
    if options.compiled:
        _compare_compiled(model, tokenizer, prompts, options)
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.dtype}")
    print(f"{'gate':>5} {'linear':>7} {'attention':>9} {'other':>6} {'per layer-token':>16} {'per FLOP':>9}")
    traced = _traced(model, tokenizer, prompts, options)
    _measure(model, tokenizer, prompts, options, math.inf)  # the first run pages in what the others use
    plain = _measure(model, tokenizer, prompts, options, math.inf)
    print(_line(0.0, plain, plain))
    for rate in options.gate_rates:
        found = _measure(model, tokenizer, prompts, options, calibrate(traced, rate).threshold)
        print(_line(rate, found, plain), flush=True)


@dataclass(frozen=True)
class Figures:
    """Seconds of all steps and of their parts, and the work that they did."""

    step: float
    linear: float
    attention: float
    rows: int
    layer_tokens: float  # recursed, as a share of a plain token's
    flops: float  # likewise


def _line(rate: float, found: Figures, plain: Figures) -> str:
    linear, attention = found.linear / found.step, found.attention / found.step
    price = plain.step / plain.rows
    recursion = found.step - price * found.rows
    ratios = [
        f"{recursion / (price * work):.2f}" if work else "" for work in (found.layer_tokens, found.flops)
    ]
    parts = f"{linear:7.2f} {attention:9.2f} {1 - linear - attention:6.2f}"
    return f"{rate:5.2f} {parts} {ratios[0]:>16} {ratios[1]:>9}"


def _compare_compiled(model: Any, tokenizer: Any, prompts: list[str], options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    kinds: dict[bool, list[float]] = {False: [], True: []}
    plain = {"spans": "0", "temperatures": [TEMPERATURE] * 4, "max_rows": options.rows}
    decoders, first = {}, {}
    for compiled in kinds:
        start = time.perf_counter()
        decoders[compiled] = PoolDecoder(model, tokenizer, compile_layers=compiled, **plain)
        decoders[compiled].generate(prompts, max_new_tokens=options.max_new_tokens, progress=False)
        first[compiled] = time.perf_counter() - start
    for _ in range(options.rounds):
        for compiled, decoder in decoders.items():
            start = time.process_time()
            pools = decoder.generate(prompts, max_new_tokens=options.max_new_tokens, progress=False)
            tokens = sum(len(rollout.tokens) for pool in pools for rollout in pool)
            kinds[compiled].append(1e6 * (time.process_time() - start) / tokens)
    own, compiled = (statistics.median(kinds[each]) for each in kinds)
    print(f"torch {torch.__version__}, one thread, {options.dtype}, {options.rows} rows")
    print(f"processor time per token: layers as they are {own:.0f} µs, compiled {compiled:.0f} µs")
    print(f"ratio {compiled / own:.2f}; compiling took {first[True] - first[False]:.0f} s, less from a cache")


def _traced(model: Any, tokenizer: Any, prompts: list[str], options: argparse.Namespace) -> Any:
    decoder = PoolDecoder(model, tokenizer, spans="0", temperatures=[TEMPERATURE] * 4, trace=True)
    return decoder.generate(prompts, max_new_tokens=options.max_new_tokens, progress=False)


def _measure(
    model: Any, tokenizer: Any, prompts: list[str], options: argparse.Namespace, threshold: float
) -> Figures:
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
    step, spent = engine.step, clock.copy()

    def stepping() -> Any:
        before = clock.copy()
        done = timed(clock, "step", step)()
        for part in ("step", "linear", "attention"):
            spent[part] += clock[part] - before[part]
        return done

    engine.step = stepping  # type: ignore[method-assign]
    linear, plain = packed_weights._apply, torch.nn.functional.linear  # packed layers, and those that are not
    packed_weights._apply = timed(clock, "linear", linear)
    torch.nn.functional.linear = timed(clock, "linear", plain)
    attentions = Past.attend, SharedPast.attend
    Past.attend, SharedPast.attend = (  # type: ignore[method-assign]
        timed(clock, "attention", each) for each in attentions
    )
    try:
        pools = decoder.generate(prompts, max_new_tokens=options.max_new_tokens, progress=False)
    finally:
        packed_weights._apply, torch.nn.functional.linear = linear, plain
        Past.attend, SharedPast.attend = attentions  # type: ignore[method-assign]
    costs = [pool.cost for pool in pools]
    rows = sum(cost.rows for cost in costs)
    recursed = sum(cost.recursion_layer_tokens for cost in costs)
    heads = sum(cost.head_evaluations for cost in costs) - rows
    depth = decoder.stack.depth
    layer, head = decoder.stack.layer_parameters(), decoder.stack.head_parameters()
    return Figures(
        spent["step"],
        spent["linear"],
        spent["attention"],
        rows,
        recursed / depth,
        (recursed * layer + heads * head) / (depth * layer + head),
    )


if __name__ == "__main__":
    main()
