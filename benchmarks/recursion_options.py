"""Which options of the recursion are worth having: chosen on one half of the problems, reported on the other.

    python benchmarks/recursion_options.py --task demo_eglr --out options
    python benchmarks/recursion_options.py --model-args pretrained=FOLDER --task svamp_eglr --limit 20

Every variant changes one option of the default grid and decodes the same problems into a store of its own (a
second run goes on from the stores). It stands beside plain samples of the same problems, at as many rollouts
and at as many FLOPs; of k samples the figures are means over all subsets of k, between two k by a straight
line. Even problems choose, odd ones report. Writes OUT/results.json and OUT/results.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from eglr_selectors import ParsedPool
from eglr_selectors.estimators import accuracy, maj_at_k, paired_bootstrap, pass_at_k
from task_runs import Difference, about, at, decode, listed, parsed_pools, points, task_parser, write

from lm_eval_eglr.calibration import measured_gate_rate
from lm_eval_eglr.harness import plugin

VARIANTS = {
    "default": "",
    "update=replace": "update=replace",
    "update=damped, strength=0.1": "update=damped,strength=0.1",
    "noise=shared": "noise=shared",
    "strength=0.1": "strength=0.1",
    "strength=0.4": "strength=0.4",
    "entropy_threshold=0.05": "entropy_threshold=0.05",
    "entropy_threshold=0.2": "entropy_threshold=0.2",
    "entropy_threshold=1": "entropy_threshold=1",
    "exit=entropy": "exit=entropy",
    "exit=latent": "exit=latent",
    "exit=none": "exit=none",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A variant on one half of the problems; differences are to plain samples, with their intervals."""

    name: str
    half: str
    majority: float
    oracle: float
    single: float
    gate_rate: float
    iterations: float  # at a gated token
    cost: float  # FLOPs over those of as many plain samples
    oracle_at_rollouts: Difference
    oracle_at_flops: Difference
    majority_at_flops: Difference


def line(name: str, half: str, pools: list[ParsedPool], samples: list[ParsedPool], seed: int) -> Line:
    """Figures of one variant on some problems."""
    rollouts, size = len(pools[0]), len(samples[0])
    flops, plain = (_mean([parsed.pool.cost.flops for parsed in each]) for each in (pools, samples))
    equal = min(float(size), size * flops / plain)
    majority, oracle = accuracy(pools, "majority").values, accuracy(pools, "oracle").values

    work = [rollout.telemetry for parsed in pools for rollout in parsed.pool]
    gated = sum(each.gated_tokens for each in work)

    def difference(values: np.ndarray, theirs: np.ndarray) -> Difference:
        paired = paired_bootstrap(values, theirs, seed=seed)
        return paired.value, paired.low, paired.high

    return Line(
        name,
        half,
        _mean(majority),
        _mean(oracle),
        _mean(pass_at_k(pools, 1).values),
        measured_gate_rate(parsed.pool for parsed in pools),
        sum(each.recursions for each in work) / max(1, gated),
        flops / plain * size / rollouts,
        difference(oracle, pass_at_k(samples, rollouts).values),
        difference(oracle, at(pass_at_k, samples, equal)),
        difference(majority, at(maj_at_k, samples, equal)),
    )


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values))


def markdown(lines: list[Line], chosen: str, facts: dict[str, object]) -> str:
    """The table of the reporting half, the choice, and what they were made with."""
    rows = [
        "| variant | one rollout, % | majority, % | oracle, % | gated, % | iterations | "
        "cost over plain samples | oracle less samples, as many rollouts | "
        "as many FLOPs | majority less samples, as many FLOPs |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in lines:
        if each.half == "report":
            rows.append(
                f"| {each.name} | {100 * each.single:.1f} | {100 * each.majority:.1f} | "
                f"{100 * each.oracle:.1f} | {100 * each.gate_rate:.0f} | {each.iterations:.2f} | "
                f"{each.cost:.2f} | {points(each.oracle_at_rollouts)} | {points(each.oracle_at_flops)} | "
                f"{points(each.majority_at_flops)} |"
            )
    rows += ["", f"Best oracle less samples of as many FLOPs on the choosing half: {chosen}."]
    rows += ["", listed(facts)]
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = task_parser(__doc__, out="options")
    parser.add_argument("--grid", default="temperatures=0:0.7x3", help="spans and temperatures")
    parser.add_argument("--samples", type=int, default=24, help="plain samples per problem, T = 0.7")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    plugin.install()
    stores = {
        name: decode(arguments, name, f"{arguments.grid},{VARIANTS[name]}".rstrip(","))
        for name in arguments.variants
    }
    plain = decode(arguments, "samples", f"strategy=sample,n={arguments.samples},temperature=0.7")
    samples = parsed_pools(plain, arguments.task)
    pools = {name: parsed_pools(store, arguments.task) for name, store in stores.items()}
    lines = [
        line(name, half, each[start::2], samples[start::2], arguments.seed)
        for name, each in pools.items()
        for start, half in enumerate(("choose", "report"))
    ]
    choosing = [each for each in lines if each.half == "choose"]
    chosen = max(choosing, key=lambda each: each.oracle_at_flops[0]).name
    facts = about(arguments, {"problems per half": len(samples) // 2}, hidden=["variants"])
    record = {"about": facts, "lines": [asdict(each) for each in lines], "chosen": chosen}
    write(arguments.out, record, markdown(lines, chosen, facts))


if __name__ == "__main__":
    main()
