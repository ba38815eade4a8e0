"""A rollout that branches, checked token by token against plain transformers."""

from __future__ import annotations

import itertools

import torch


@torch.no_grad()
def check_path(model, prompt, rollout, config, gated=True):
    """Asserts that a rollout is the argmax at every token but its forks, and there what its path says.

    Args:
        gated: Whether the entropy must exceed the threshold at every fork, as in a first round.
    """
    tokens = list(rollout.tokens)
    logits = model(torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    forks = dict(rollout.cell.path)
    for step, (token, line) in enumerate(zip(tokens, logits, strict=True)):
        order = line.argsort(descending=True).tolist()
        assert token == order[forks.get(step, 0)], (rollout.cell, step)
        likeliest = line.log_softmax(-1).topk(min(config.branch_top_k, len(line))).values
        probabilities = likeliest.exp() / likeliest.exp().sum()
        entropy = float(-(probabilities * probabilities.log()).sum())
        if rollout.telemetry.token_branch_entropies:
            assert abs(rollout.telemetry.token_branch_entropies[step] - entropy) < 1e-6
        if gated and step in forks:
            assert entropy > config.branch_threshold, (rollout.cell, step)
    steps = [step for step, _ in rollout.cell.path]
    assert all(b - a >= config.min_branch_distance for a, b in itertools.pairwise(steps))


def decoded(pools):
    """Cells and tokens of pools, which decide everything else."""
    return [[(rollout.cell, rollout.tokens) for rollout in pool] for pool in pools]
