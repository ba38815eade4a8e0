"""The fork policy of EAGER: a rollout whose next token is uncertain goes on with several tokens.

Source: EAGER, arXiv 2510.11170: fork where the entropy of the likeliest tokens exceeds a threshold. Its
authors fork from sampled text; here the token that was drawn goes on as if nothing had been, and the
likeliest others branch off, so that forking never changes a rollout that is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lm_eval_eglr.decoding.config import BranchingConfig
from lm_eval_eglr.decoding.distributions import Distributions
from lm_eval_eglr.decoding.noise import DrawStream
from lm_eval_eglr.decoding.recursion import entropy
from lm_eval_eglr.decoding.rows import Branch, Place, Row


def top_entropy(logprobs: Tensor, top_k: int) -> Tensor:
    """Entropy of the ``top_k`` likeliest tokens, renormalised, nats: ``[..., vocab]`` to ``[...]``."""
    likeliest = logprobs.topk(min(top_k, logprobs.shape[-1])).values
    return entropy(likeliest.log_softmax(-1))


def branch_out(rows: Sequence[Row], drawn: dict[Place, int], distributions: Distributions) -> None:
    """Adds the branches that fork off at this step to their rows, each with the token that it draws.

    All rollouts of a request are at the same token, so that which of them fork while there is room is
    decided token by token, and within a token by the order in which they were opened: never by the batch.

    Args:
        rows: All live rows.
        drawn: Tokens drawn so far; those of the new branches are added, that of a starting one is set.
        distributions: What they were drawn from.
    """
    places = [
        (number, place)
        for number, row in enumerate(rows)
        if row.job.request.branching is not None
        for place in range(len(row.branches))
        if (number, place) in drawn
    ]
    places.sort(key=lambda at: rows[at[0]].branches[at[1]].order)
    groups: dict[BranchingConfig, list[Place]] = {}
    for at in places:
        config = rows[at[0]].job.request.branching
        assert config is not None
        groups.setdefault(config, []).append(at)
    for config, group in groups.items():
        entries = [
            distributions.entry(number, rows[number].branches[place].cell.span) for number, place in group
        ]
        logprobs = distributions.logprobs[entries]
        gates = top_entropy(logprobs, config.top_k).tolist()
        for at, line, gate in zip(group, logprobs, gates, strict=True):
            _fork(rows[at[0]], at, line, gate, config, drawn)


def _fork(
    row: Row, at: Place, logprobs: Tensor, gate: float, config: BranchingConfig, drawn: dict[Place, int]
) -> None:
    """Lets one branch part from what it starts from, fork, or go on; ``logprobs`` is ``[vocab]``."""
    branch, job, start = row.branches[at[1]], row.job, row.job.request.start
    step = len(branch.tokens)
    branch.gates.append(gate)
    if start is not None and step == len(start.tokens):
        drawn[at] = _others(logprobs, start.taken, start.rank)[-1]
        branch.last_fork = step
        return
    far = branch.last_fork is None or step - branch.last_fork >= config.distance
    count = min(config.width - 1, job.spare)
    if not (gate > config.threshold and far and count):
        return
    for rank, token in enumerate(_others(logprobs, drawn[at], count), 1):
        drawn[at[0], len(row.branches)] = token
        row.branches.append(_child(branch, row, (step, rank)))
        job.spare -= 1
        job.live += 1
    branch.last_fork = step


def _others(logprobs: Tensor, taken: int, count: int) -> list[int]:
    """The ``count`` likeliest tokens but for ``taken``, likeliest first; fewer in a small vocabulary."""
    likeliest: list[int] = torch.topk(logprobs, min(count + 1, len(logprobs))).indices.tolist()
    return [token for token in likeliest if token != taken][:count]


def _child(parent: Branch, row: Row, fork: tuple[int, int]) -> Branch:
    """A branch that has all of its parent's tokens and its own draws from here on."""
    request = row.job.request
    opened = request.rows - row.job.spare
    first = request.cells[0]
    cell = replace(parent.cell, sample=first.sample + opened, path=(*parent.cell.path, fork))
    return Branch(
        cell,
        opened,
        DrawStream(request.sampling, request.document, cell),
        list(parent.tokens),
        list(parent.records),
        list(parent.gates),
        fork[0],
    )
