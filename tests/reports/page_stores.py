"""Stores of any size for tests of the page: grids with telemetry, traces and hostile texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from eglr_selectors import Cell, PoolCost, Rollout, RolloutPool, Telemetry

from lm_eval_eglr.store import Manifest, PoolKey, StoreWriter

WORDS = [f" {''.join(chr(97 + (7 * i + 3 * j) % 26) for j in range(2 + i % 6))}" for i in range(600)]
DEPTH = 12
SPANS, TEMPERATURES = (0, 2, 4, 8), (0.0, 0.7, 0.7, 0.7)
HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>\x1b[31m 🦙"


def write_grid(
    folder: Path,
    problems: int,
    length: int,
    repeats: int = 1,
    traced: bool = True,
    model: str = "tiny/model",
    spans: tuple[int, ...] = SPANS,
) -> Path:
    """Writes a store of ``problems`` pools of 4 × spans × ``repeats`` rollouts of ``length`` tokens."""
    rng = np.random.default_rng(0)
    writer = StoreWriter(folder)
    fingerprint = {"model": model, "seed": 0}
    with writer.writing(Manifest(fingerprint)):
        writer.describe_tokens(lambda: WORDS)
        for number in range(problems):
            hard = rng.random()
            rollouts = []
            for span in spans:
                for column, temperature in enumerate(TEMPERATURES * repeats):
                    right = rng.random() > hard * (1 + 0.1 * (temperature > 0))
                    answer = "7" if right else str(rng.integers(1, 6))
                    tokens = (rng.zipf(1.3, length) % len(WORDS)).tolist()
                    if span and rollouts:  # half of a rollout is what the plain model wrote
                        tokens[: length // 2] = rollouts[column].tokens[: length // 2]
                    text = "".join(WORDS[token] for token in tokens) + rf" \boxed{{{answer}}}"
                    if number == 1:
                        text = HOSTILE + text
                    entropies = (rng.gamma(1.0, 0.4 + 0.3 * (not right), length)).astype(np.float32)
                    if span and rollouts and traced:  # what a prefix decides is the same under both
                        entropies[: length // 2] = rollouts[column].telemetry.token_entropies[: length // 2]
                    gated = entropies > 1
                    steps = tuple((gated * 2).astype(int).tolist()) if span else (0,) * length
                    changes = (gated & (np.cumsum(gated) % 3 == 1)) * (span > 0)
                    telemetry = Telemetry(
                        mean_entropy=float(entropies.mean()),
                        mean_logprob=-float(entropies.mean()),
                        mean_confidence=5.0,
                        gated_tokens=int(gated.sum()) * (span > 0),
                        recursions=sum(steps),
                        ties=int(number == 2),
                        changed_tokens=int(changes.sum()),
                        token_changes=tuple(changes.astype(int).tolist()) if traced else (),
                        token_entropies=tuple(entropies.tolist()) if traced else (),
                        token_iterations=steps if traced else (),
                        plain_layer_tokens=DEPTH * length,
                        recursion_layer_tokens=span * sum(steps),
                        head_evaluations=length + sum(steps),
                    )
                    cell = Cell(span, temperature, max(0, column - 1))
                    reason = "length" if rng.random() < 0.05 else "stop"
                    rollouts.append(Rollout(text, cell, reason, tuple(tokens), telemetry))
            problem = f"Problem {number}: how many are {number} and 7?"
            fields = {
                "problem": HOSTILE + problem if number == 1 else problem,
                "subject": ("algebra", "geometry", "number theory")[number % 3],
                "level": 1 + number % 5,
            }
            head = PoolKey("toy_eglr", number, document=f"{number}:0", fields=fields, reference="7")
            writer.append(head, RolloutPool(tuple(rollouts), problem, cost_of(rollouts, shared=length // 4)))
    return folder


def cost_of(rollouts: list[Rollout], shared: int) -> PoolCost:
    """The cost of a pool whose rollouts have so many tokens in common: 1 per layer and token, 5 per head."""
    tokens = sum(len(rollout.tokens) for rollout in rollouts)
    rows = tokens - shared * (len(rollouts) - 1)
    work = [rollout.telemetry for rollout in rollouts if rollout.telemetry is not None]
    layers, recursed = DEPTH * (19 + rows), sum(each.recursion_layer_tokens for each in work)
    heads = sum(each.head_evaluations for each in work) - tokens + rows
    plain = DEPTH * (19 + tokens) + 5.0 * tokens
    return PoolCost(20, tokens, rows, layers, recursed, heads, layers + recursed + 5.0 * heads, plain)


def write_texts(folder: Path, problems: int) -> Path:
    """Writes a store of texts of another backend: no cells, no telemetry, no tokens, no cost."""
    writer = StoreWriter(folder)
    with writer.writing(Manifest({"model": "other/backend"})):
        for number in range(problems):
            texts = [rf"so it is \boxed{{{(number * place) % 3}}}" for place in range(4)]
            head = PoolKey("texts_eglr", number, document=f"{number}:0", reference="1")
            writer.append(head, RolloutPool.from_texts(texts, prompt=f"Problem {number}?"))
    return folder


def write_recurrences(folder: Path, problems: int, levels: tuple[int, ...] = (2, 4, 12)) -> Path:
    """Writes a store of a recurrent-depth model whose tokens, all but the first of a rollout, exit early."""
    writer = StoreWriter(folder)
    with writer.writing(Manifest({"model": "tiny/recurrent", "axis": "R"})):
        writer.describe_tokens(lambda: WORDS)
        for number in range(problems):
            rollouts = []
            for level in levels:
                for temperature in (0.0, 0.7):
                    tokens = (5, 6, 7 + (level == levels[0]), 8)
                    iterations = (level, *(max(1, level - 1),) * 3)
                    telemetry = Telemetry(
                        mean_entropy=0.5,
                        recursions=sum(iterations),
                        converged_tokens=3,
                        changed_tokens=0,
                        token_entropies=(0.1, 0.2, 1.3, 0.4),
                        token_iterations=iterations,
                        token_changes=(0,) * 4,
                        plain_layer_tokens=8,
                        recursion_layer_tokens=2 * sum(iterations),
                        head_evaluations=4,
                    )
                    right = (number + level) % 3 > 0
                    text = rf"so it is \boxed{{{7 if right else 3}}}"
                    cell = Cell(level, temperature, axis="R")
                    rollouts.append(Rollout(text, cell, "stop", tokens, telemetry))
            head = PoolKey("toy_eglr", number, document=f"{number}:0", reference="7")
            writer.append(head, RolloutPool(tuple(rollouts), f"Problem {number}?"))
    return folder


def write_branches(folder: Path, problems: int) -> Path:
    """Writes a store of pools of span 0 whose number of rollouts differs from problem to problem."""
    writer = StoreWriter(folder)
    with writer.writing(Manifest({"model": "tiny/model"})):
        for number in range(problems):
            rollouts = [
                Rollout(
                    rf"so it is \boxed{{{place % 3}}}",
                    Cell(0, 1.0, place),
                    "stop",
                    (1, 2, 3),
                    Telemetry(mean_entropy=0.2 + 0.1 * place),
                )
                for place in range(2 + number)
            ]
            head = PoolKey("branches_eglr", number, document=f"{number}:0", reference="1")
            writer.append(head, RolloutPool(tuple(rollouts), f"Problem {number}?"))
    return folder
