"""What passes over the vocabulary cost: everything that a step does with its distributions.

    python benchmarks/distributions.py [--device cuda] [--rows 256] [--vocabularies 32000 151936]

Prints milliseconds of a step's distributions. The ratios are those to what statistics and draws take where
tokens are sought among all at once, not in chunks first. All parts run in turns; medians over the rounds. The
tokens are drawn at temperature 0.7, without truncation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from lm_eval_eglr.decoding import numerics, sampling
from lm_eval_eglr.decoding.sampling import warpers


def seconds(function: Callable[[], object], device: str) -> float:
    """Of one call, once the device is done with it."""
    begun = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def undivided(function: Callable[[], object]) -> object:
    """Calls a function for which no vocabulary is large."""
    places = [(numerics, "LARGE_VOCABULARY"), (sampling, "LARGE_VOCABULARY"), (sampling, "LARGE_ON_CPU")]
    bounds = [getattr(*place) for place in places]
    for place in places:
        setattr(*place, 1 << 40)
    try:
        return function()
    finally:
        for place, bound in zip(places, bounds, strict=True):
            setattr(*place, bound)


def parts_of(scores: torch.Tensor) -> list[Callable[[], object]]:
    """What is done with the distributions of a step, in the order of the table."""
    logprobs, before = scores.log_softmax(-1), scores.roll(1, 0).log_softmax(-1)
    heat, uniforms = scores.new_full((len(scores),), 0.7), torch.rand_like(scores[:, :1])
    warp = warpers((0, 1.0, 0.0))

    def described() -> object:
        return numerics.statistics(logprobs)

    def drawn() -> object:
        return sampling.draw_tokens(logprobs, heat, uniforms, warp)

    return [
        lambda: scores.log_softmax(-1),
        described,
        lambda: undivided(described),
        lambda: numerics.kl_divergence(logprobs, before),
        drawn,
        lambda: undivided(drawn),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32_000, 49_152, 151_936])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rows} rows, ms")
    print("vocabulary  softmax  statistics  ratio  divergence  draws  ratio")
    for size in options.vocabularies:
        parts = parts_of(3 * torch.randn(options.rows, size, device=options.device))
        rounds = [[seconds(part, options.device) for part in parts] for _ in range(options.rounds + 1)][1:]
        softmax, ours, whole, divergence, draws, drawn = (
            1e3 * median(each) for each in zip(*rounds, strict=True)
        )
        print(
            f"{size:10} {softmax:8.2f} {ours:11.2f} {ours / whole:6.2f} {divergence:11.2f} {draws:6.2f} "
            f"{draws / drawn:6.2f}"
        )


if __name__ == "__main__":
    main()
