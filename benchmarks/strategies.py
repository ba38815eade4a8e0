"""Strategies at equal token budgets on the same problems: sample, eager, adaptive_grid and grid.

    python benchmarks/strategies.py --task demo_eglr --limit 200 --out strategies
    python benchmarks/strategies.py --model-args pretrained=FOLDER,dtype=float32 --task gsm8k_eglr --limit 50

Every strategy decodes the problems once into a store of its own (a second run goes on from the stores).
Each is compared with plain samples of the same problems, once with as many tokens and once with as many
FLOPs: pass@k and maj@k of the samples are means over all subsets of k, between two k by a straight line.

Tokens are counted as a plain sampler would decode them: of branches, a prefix that they share counts once,
but samples share nothing. FLOPs are those that were spent, with what the rollout tree saves on either side
and prompts that were read again; k samples are taken to cost k/n of n, which is less than they do.

Writes OUT/results.json and OUT/results.md.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass

import numpy as np
import torch
from eglr_selectors import ParsedPool
from eglr_selectors.estimators import accuracy, bootstrap, maj_at_k, paired_bootstrap, pass_at_k
from task_runs import Difference, about, at, decode, listed, parsed_pools, points, task_parser, write

from lm_eval_eglr.decoding.strategies.rounds import decoded_tokens
from lm_eval_eglr.harness import plugin


@dataclass(frozen=True, slots=True)
class Line:
    """One strategy; figures are means over problems, intervals hold 95 %."""

    name: str
    uses_reference: bool
    majority: float
    majority_interval: tuple[float, float]
    oracle: float
    oracle_interval: tuple[float, float]
    rollouts: float
    tokens: float
    flops: float
    samples: float  # plain samples that decode as many tokens
    majority_less_samples: Difference  # difference with its paired interval
    oracle_less_samples: Difference
    samples_by_flops: float  # plain samples that spend as many FLOPs; all there are if they spend fewer
    majority_less_samples_by_flops: Difference
    oracle_less_samples_by_flops: Difference


def runs(arguments: argparse.Namespace) -> dict[str, str]:
    """The strategies by name, as model arguments."""
    n, grid = arguments.n, arguments.grid
    forks = f"branch_threshold={arguments.threshold},min_branch_distance={arguments.distance}"
    eager = f"strategy=eager,n={n},{forks}"
    return {
        f"sample n={arguments.samples}": f"strategy=sample,n={arguments.samples},temperature=0.7",
        f"grid {n}": f"strategy=grid,{grid}",
        f"adaptive_grid n={3 * n // 4}": f"strategy=adaptive_grid,{grid},n={3 * n // 4}",
        f"eager n={n}, budget=none": f"{eager},budget=none",
        f"eager n={n}": f"{eager},budget=free",
        f"eager n={n}, budget=labels": f"{eager},budget=labels",
    }


def line(name: str, pools: list[ParsedPool], samples: list[ParsedPool], seed: int) -> Line:
    """Figures of one strategy beside samples of as many tokens."""
    tokens = [decoded_tokens(parsed.pool) for parsed in pools]
    size = float(len(samples[0]))
    flops = float(np.mean([parsed.pool.cost.flops for parsed in pools]))
    plain_flops = float(np.mean([parsed.pool.cost.flops for parsed in samples]))
    by_tokens = min(size, size * sum(tokens) / sum(decoded_tokens(parsed.pool) for parsed in samples))
    by_flops = min(size, size * flops / plain_flops)
    majority, oracle = accuracy(pools, "majority").values, accuracy(pools, "oracle").values

    def less(values: np.ndarray, theirs: np.ndarray) -> Difference:
        paired = paired_bootstrap(values, theirs, seed=seed)
        return paired.value, paired.low, paired.high

    maj, best = bootstrap(majority, seed=seed), bootstrap(oracle, seed=seed)
    return Line(
        name,
        any(parsed.pool.uses_reference for parsed in pools),
        *(maj.value, (maj.low, maj.high), best.value, (best.low, best.high)),
        float(np.mean([len(parsed) for parsed in pools])),
        float(np.mean(tokens)),
        flops,
        by_tokens,
        less(majority, at(maj_at_k, samples, by_tokens)),
        less(oracle, at(pass_at_k, samples, by_tokens)),
        by_flops,
        less(majority, at(maj_at_k, samples, by_flops)),
        less(oracle, at(pass_at_k, samples, by_flops)),
    )


def markdown(lines: list[Line], curve: dict[int, tuple[float, float]], facts: dict[str, object]) -> str:
    """Both tables, with what they were made with."""
    head = (
        "| strategy | majority, % | oracle, % | rollouts | tokens | FLOPs | samples of as many tokens | "
        "majority less theirs, points | oracle less theirs, points | samples of as many FLOPs | "
        "majority less theirs | oracle less theirs |\n|:--" + "|--:" * 11 + "|"
    )
    rows = [head]
    for each in lines:
        mark = " (uses reference)" if each.uses_reference else ""
        rows.append(
            f"| {each.name}{mark} | {100 * each.majority:.1f} | {100 * each.oracle:.1f} | "
            f"{each.rollouts:.1f} | {each.tokens:.0f} | {each.flops:.2e} | {each.samples:.1f} | "
            f"{points(each.majority_less_samples)} | {points(each.oracle_less_samples)} | "
            f"{each.samples_by_flops:.1f} | {points(each.majority_less_samples_by_flops)} | "
            f"{points(each.oracle_less_samples_by_flops)} |"
        )
    rows += ["", "| plain samples | " + " | ".join(map(str, curve)) + " |", "|:--|" + "--:|" * len(curve)]
    for place, name in enumerate(("maj@k, %", "pass@k, %")):
        rows.append(f"| {name} | " + " | ".join(f"{100 * ends[place]:.1f}" for ends in curve.values()) + " |")
    rows += ["", listed(facts)]
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = task_parser(__doc__, out="strategies")
    parser.add_argument("--n", type=int, default=16, help="M of eager, and cells of the grid")
    parser.add_argument("--samples", type=int, default=32, help="plain samples per problem")
    parser.add_argument("--grid", default="spans=0:1:2:4,temperatures=0:0.7x3", help="spans and temperatures")
    parser.add_argument("--threshold", type=float, default=2.0, help="branch_threshold of eager, nats")
    parser.add_argument("--distance", type=int, default=1, help="min_branch_distance of eager, tokens")
    parser.add_argument("--only", help="name of one strategy, for several runs side by side")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    plugin.install()
    stores = {}
    for name, options in runs(arguments).items():
        if arguments.only in (None, name):
            stores[name] = decode(arguments, name, options)
    if arguments.only:
        return
    pools = {name: parsed_pools(store, arguments.task) for name, store in stores.items()}
    samples = pools[f"sample n={arguments.samples}"]
    lines = [line(name, each, samples, arguments.seed) for name, each in pools.items()]
    sizes = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= arguments.samples]
    curve = {
        k: (float(np.nanmean(maj_at_k(samples, k).values)), float(np.nanmean(pass_at_k(samples, k).values)))
        for k in sizes
    }
    facts = about(arguments, {"problems": len(samples)}, hidden=["only"])
    record = {"about": facts, "strategies": [asdict(each) for each in lines], "samples": curve}
    write(arguments.out, record, markdown(lines, curve, facts))


if __name__ == "__main__":
    main()
