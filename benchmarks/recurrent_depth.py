"""What recurrences, exits, shared slots and drafts are worth on a task, for a recurrent-depth model.

    python benchmarks/recurrent_depth.py --limit 200 --apply-chat-template --out recurrent_depth

Five tables: greedy rollouts by their number of recurrences; with rules of exit; with fewer slots of keys and
values; drafts, with the passes that they save; and the grid recurrences x temperatures beside samples of the
model's own number of recurrences, at as many rollouts and at as many FLOPs. Accuracies have their standard
error over problems, differences a paired 95 % interval. FLOPs are counted, two per parameter and application.
Problems are decoded once into stores; a second run goes on from them. Drafts are decoded anew.

Writes OUT/results.json and OUT/results.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from eglr_selectors import ParsedPool
from eglr_selectors.estimators import accuracy, maj_at_k, paired_bootstrap, pass_at_k
from eglr_selectors.unit_costs import unit_costs
from task_runs import about, at, decode, listed, parsed_pools, points, task_parser, write

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.harness import plugin

Row = dict[str, Any]


def table(rows: Sequence[Row]) -> str:
    """Rows of one shape as a table of Markdown."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "| --- |" + " --: |" * (len(names) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows)])


def single(pools: Sequence[ParsedPool], level: int) -> Row:
    """Figures of the greedy rollouts at one level of recurrences."""
    units = unit_costs(pools)
    assert units is not None
    solved, work, tokens, flops = [], 0, 0, []
    for parsed in pools:
        [place] = [i for i, r in enumerate(parsed.pool) if (r.cell.depth, r.cell.temperature) == (level, 0.0)]
        rollout = parsed.pool[place]
        solved.append(bool(parsed.correct[place]))
        work += rollout.telemetry.recursions
        tokens += len(rollout.tokens)
        flops.append(units.unshared(rollout))
    share = float(np.mean(solved))
    error = (share * (1 - share) / len(solved)) ** 0.5
    return {
        "solved, %": f"{100 * share:.1f} ± {100 * error:.1f}",
        "iterations per token": f"{work / tokens:.2f}",
        "tokens": f"{tokens / len(solved):.1f}",
        "MFLOPs per rollout": f"{np.mean(flops) / 1e6:.1f}",
    }


def drafts(arguments: argparse.Namespace, prompts: list[str], cases: Sequence[Row]) -> list[Row]:
    """Greedy rollouts and samples with drafts beside those without, a few rows at a time."""
    name = dict(part.split("=", 1) for part in arguments.model_args.split(","))["pretrained"]
    rows: list[Row] = []
    for temperature in ("0", "0.7"):
        plain: list[Any] | None = None
        for options in ({}, *cases):
            decoder = PoolDecoder.from_pretrained(
                name,
                recurrences=arguments.own,
                temperatures=temperature,
                max_rows=arguments.draft_rows,
                **options,
            )
            passes = counted(decoder)
            began = time.process_time()
            pools = decoder.generate(prompts, max_new_tokens=arguments.max_gen_toks or 256, progress=False)
            seconds = time.process_time() - began
            texts = [rollout.tokens for pool in pools for rollout in pool]
            plain = [texts, passes[0], seconds, sum(p.cost.flops for p in pools)] if plain is None else plain
            same = [mine == theirs for mine, theirs in zip(texts, plain[0], strict=True)]
            rows.append(
                {
                    "temperature": temperature,
                    "drafts": ", ".join(f"{key}={value}" for key, value in options.items()) or "none",
                    "accepted, %": f"{100 * decoder.draft_acceptance:.0f}" if options else "",
                    "same tokens, % of rollouts": f"{100 * np.mean(same):.1f}",
                    "full-depth passes": f"{passes[0] / plain[1]:.2f}",
                    "FLOPs": f"{sum(p.cost.flops for p in pools) / plain[3]:.2f}",
                    "CPU time": f"{seconds / plain[2]:.2f}",
                }
            )
    return rows


def counted(decoder: PoolDecoder) -> list[int]:
    """Counts the times that the last iteration of the block is run: what a GPU with few rows waits for."""
    count, model = [0], decoder.stack.recurrent
    iterate = model.iterate
    last = model.recurrences - 1

    def counting(embedded: Any, states: Any, positions: Any, step: int, cache: Any) -> Any:
        count[0] += step == last
        return iterate(embedded, states, positions, step, cache)

    model.iterate = counting
    return count


def beside_samples(grid: list[ParsedPool], samples: list[ParsedPool], seed: int) -> list[Row]:
    """The grid and samples of the model's own recurrences, at as many rollouts and at as many FLOPs."""
    flops = [float(np.mean([parsed.pool.cost.flops for parsed in pools])) for pools in (grid, samples)]
    size = float(len(samples[0]))
    rows: list[Row] = []
    equal = size * flops[0] / flops[1]
    budgets = {
        "as many rollouts": min(size, float(len(grid[0]))),
        "as many FLOPs" if equal <= size else "all there are, of fewer FLOPs": min(size, equal),
    }
    for what, k in budgets.items():
        row: Row = {
            "samples": what,
            "k": f"{k:.1f}",
            "FLOPs of the samples / grid": f"{flops[1] * k / size / flops[0]:.2f}",
        }
        pairs: list[tuple[str, str, Callable[..., Any]]] = [
            ("majority", "majority", maj_at_k),
            ("oracle", "oracle", pass_at_k),
        ]
        for name, selector, estimator in pairs:
            mine, theirs = accuracy(grid, selector).values, at(estimator, samples, k)
            paired = paired_bootstrap(mine, theirs, seed=seed)
            row[f"{name}: grid, %"] = f"{100 * mine.mean():.1f}"
            row[f"{name}: samples, %"] = f"{100 * theirs.mean():.1f}"
            row["difference" + " " * (name == "oracle")] = points((paired.value, paired.low, paired.high))
        rows.append(row)
    return rows


def main() -> None:
    parser = task_parser(__doc__, out="recurrent_depth")
    parser.set_defaults(model_args="pretrained=demo-recurrent,dtype=float32")
    parser.add_argument("--recurrences", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--own", type=int, default=6, help="recurrences of the other tables")
    parser.add_argument("--grid", type=int, nargs="+", default=[1, 2, 4, 8], help="recurrences of the grid")
    parser.add_argument("--draft-rows", type=int, default=1, help="rows at a time where drafts are timed")
    parser.add_argument("--draft-problems", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    plugin.install()
    own = arguments.own

    def run(name: str, options: str) -> list[ParsedPool]:
        return parsed_pools(decode(arguments, name, options), arguments.task)

    levels = ":".join(map(str, arguments.recurrences))
    greedy = run("by recurrences", f"recurrences={levels},temperatures=0")
    tables: dict[str, list[Row]] = {
        "recurrences": [{"recurrences": level, **single(greedy, level)} for level in arguments.recurrences]
    }
    exits = ("none", "kl", "kl,exit_threshold=0.01", "entropy", "latent", "latent,exit_threshold=0.1")
    tables["exits"] = [
        {"exit": rule, **single(run(f"exit {rule}", f"recurrences={own},temperatures=0,exit={rule}"), own)}
        for rule in exits
    ]
    budgets = [own >> shift for shift in range(own.bit_length())]
    tables["slots"] = [
        {"kv_budget": k, **single(run(f"slots {k}", f"recurrences={own},temperatures=0,kv_budget={k}"), own)}
        for k in budgets
    ]
    prompts = [parsed.pool.prompt for parsed in greedy[: arguments.draft_problems]]
    cases = [
        {"draft_recurrences": few, "draft_tokens": count} for few in (1, 2, own // 2) for count in (2, 4)
    ]
    tables["drafts"] = drafts(arguments, prompts, cases)
    grid = ":".join(map(str, arguments.grid))
    pools = run("grid", f"recurrences={grid},temperatures=0:0.7x3")
    samples = run("samples of 32", f"recurrences={own},temperatures=0:0.7x31")
    tables["grid"] = beside_samples(pools, samples, arguments.seed)
    facts = about(arguments, {"problems": len(greedy)}, hidden=[])
    text = "\n\n".join(f"## {name}\n\n{table(rows)}" for name, rows in tables.items())
    write(arguments.out, {"about": facts, **tables}, f"{text}\n\n{listed(facts)}\n")


if __name__ == "__main__":
    main()
