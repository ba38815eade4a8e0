"""Times a table of selectors: 500 problems × 64 rollouts × 15 selectors, once answers are parsed.

    python benchmarks/selection.py [problems]

Pools are made up from a fixed seed, with traced token confidences. Target: under 2 seconds for the
whole table on one core.
"""

from __future__ import annotations

import random
import sys
import time

from eglr_selectors import Cell, Rollout, RolloutPool, Telemetry, get_selector, parse_pools

SPANS, TEMPERATURES, TOKENS = (0, 2, 4, 8), (0.0, *(0.7,) * 15), 200
SELECTORS = (
    "greedy",
    "first",
    "cell(2, 0.7, 0)",
    "majority",
    "span_balanced",
    "entropy_weighted",
    "logprob_weighted",
    "self_certainty",
    "deepconf",
    "deepconf(measure='bottom', window=64)",
    "best_of_n",
    "weighted_vote",
    "adaptive",
    "early_stop",
    "oracle",
)


def make_pool(rng: random.Random) -> RolloutPool:
    """Makes one grid of rollouts with answers, scores and telemetry."""
    rollouts = []
    for span in SPANS:
        for column, temperature in enumerate(TEMPERATURES):
            answer = rng.choices((r"\boxed{1}", rf"\boxed{{{rng.randint(2, 9)}}}", "none"), (4, 5, 1))[0]
            telemetry = Telemetry(
                mean_entropy=rng.random(),
                mean_logprob=-rng.random(),
                mean_confidence=10 * rng.random(),
                mean_self_certainty=10 * rng.random(),
                token_confidences=tuple(10 * rng.random() for _ in range(TOKENS)),
            )
            cell = Cell(span, temperature, max(0, column - 1))
            rollouts.append(
                Rollout(answer, cell, "stop", tuple(range(TOKENS)), telemetry, score=rng.random())
            )
    return RolloutPool(tuple(rollouts))


def main(problems: int) -> None:
    """Prints the seconds of reading and grading, of every selector, and of the table."""
    rng = random.Random(0)
    pools = [make_pool(rng) for _ in range(problems)]
    start = time.perf_counter()
    parsed = parse_pools(pools, ["1"] * problems)
    for each in parsed:
        each.correct  # noqa: B018 - grades it
    print(f"{time.perf_counter() - start:8.3f} s  reading and grading {problems} × {len(pools[0])} rollouts")
    get_selector("first")  # imports the strategies, once per process
    total = 0.0
    for name in SELECTORS:
        start = time.perf_counter()
        selector = get_selector(name)
        for each in parsed:
            selector(each)
        seconds = time.perf_counter() - start
        total += seconds
        print(f"{seconds:8.3f} s  {name}")
    print(f"{total:8.3f} s  all {len(SELECTORS)} selectors")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
