"""The fork policy of EAGER: a rollout whose next token is uncertain goes on with several tokens.

Source: EAGER, arXiv 2510.11170: fork where the entropy of the likeliest tokens exceeds a threshold. Its
authors fork from sampled text; here the token that was drawn continues unchanged and the likeliest others
branch off, so that forking never changes a rollout that is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from lm_eval_eglr.decoding.cells import CellTable
from lm_eval_eglr.decoding.config import BranchingConfig
from lm_eval_eglr.decoding.numerics import entropy, on_device
from lm_eval_eglr.decoding.request import Job
from lm_eval_eglr.decoding.telemetry import COLUMN


def top_entropy(logprobs: Tensor, top_k: int) -> Tensor:
    """Entropy of the ``top_k`` likeliest tokens, renormalised, nats: ``[..., vocab]`` to ``[...]``."""
    likeliest = logprobs.topk(min(top_k, logprobs.shape[-1])).values
    return entropy(likeliest.log_softmax(-1))


def that_may_fork(
    table: CellTable, jobs: Sequence[Job | None], cells: np.ndarray
) -> list[tuple[BranchingConfig, np.ndarray]]:
    """The places of cells at which rollouts may fork, by their options."""
    configs: dict[BranchingConfig, list[int]] = {}
    for index, job in enumerate(jobs):
        if job is not None and job.request.branching is not None:
            configs.setdefault(job.request.branching, []).append(index)
    members = table.job[cells]
    found = [(config, np.flatnonzero(np.isin(members, indices))) for config, indices in configs.items()]
    return [(config, places) for config, places in found if len(places)]


def candidates(
    branching: Sequence[tuple[BranchingConfig, np.ndarray]], logprobs: Tensor, entries: Tensor
) -> tuple[list[Tensor], Tensor]:
    """What decides on forks, and the tokens with which rollouts might fork; all of it on the device.

    Args:
        branching: Draws at which rollouts may fork, by their options.
        logprobs: The distributions of the pass, ``[rows, vocab]``.
        entries: Which of them each draw is from, ``[draws]``.

    Returns:
        For each of the options the entropies ``[n]``, likeliest tokens and their log-probabilities
        ``[n, width]``; and the entropies of all draws, ``[draws]``, 0 where nothing forks.
    """
    found = []
    gates = logprobs.new_zeros(len(entries))
    for config, places in branching:
        index = on_device(places, logprobs.device)
        lines = logprobs[entries[index]]
        gates[index] = top_entropy(lines, config.top_k)
        values, tokens = lines.topk(min(config.width, lines.shape[-1]))
        found += [gates[index], tokens, values]
    return found, gates


class Branch(NamedTuple):
    """A branch that is opened: what it draws, instead of what its parent does."""

    parent: int
    token: int
    logprob: float
    rank: int
    step: int


class Forks(NamedTuple):
    """What :func:`plan_forks` decided.

    Attributes:
        branches: New branches.
        children: Their lines of the table; in the rows of their parents, and not counted yet.
        parting: Cells that part from a finished rollout, with the token.
    """

    branches: list[Branch]
    children: list[int]
    parting: list[int]

    def take(self, table: CellTable) -> None:
        """Counts the branches for their jobs, once nothing can go wrong any more."""
        for branch, child in zip(self.branches, self.children, strict=True):
            table.forked[child] = table.forked[branch.parent] = branch.step
            job = table.line(child).job
            job.branches_left -= 1
            job.live += 1
        table.forked[self.parting] = table.parting[self.parting]

    def undo(self, table: CellTable) -> None:
        """Forgets the branches."""
        table.retire(np.array(self.children, np.int64))


def plan_forks(
    table: CellTable,
    jobs: Sequence[Job | None],
    cells: np.ndarray,
    branching: Sequence[tuple[BranchingConfig, np.ndarray]],
    found: np.ndarray,
    vocabulary: int,
) -> Forks:
    """Adds the branches that fork off at this step to their rows, each with the token that it draws.

    All rollouts of a request are at the same token, so that which of them fork while there is room is decided
    token by token, and within a token by the order in which they were opened: never by the batch.

    Args:
        table: The cells; what a branch draws, and a rollout that goes on from another, is set in ``drawn``.
        jobs: Jobs by index.
        cells: Cells of the draws, ``[draws]``.
        branching: As of :func:`candidates`.
        found: What :func:`candidates` found, one after the other.
        vocabulary: Number of tokens.
    """
    opened: list[Branch] = []
    parting: list[int] = []
    left: dict[int, int] = {}
    for config, places in branching:
        count, width = len(places), min(config.width, vocabulary)
        gates, tokens, values = np.split(found[: count * (1 + 2 * width)], [count, count * (1 + width)])
        found = found[count * (1 + 2 * width) :]
        tokens, values = tokens.reshape(count, width).astype(np.int64), values.reshape(count, width)
        lines = cells[places]
        lengths = table.length[lines]
        parts = table.parting[lines] == lengths
        may_fork = (gates > config.threshold) & (lengths - table.forked[lines] >= config.distance)
        happening = np.flatnonzero((parts | may_fork) & (table.drawn[lines] >= 0))
        for place in happening[np.argsort(table.order[lines[happening]], kind="stable")].tolist():
            cell, step = int(lines[place]), int(lengths[place])
            job = jobs[table.job[cell]]
            assert job is not None
            line = list(zip(tokens[place].tolist(), values[place].tolist(), strict=True))
            if parts[place]:
                assert job.request.start is not None
                token, logprob = _others(line, job.request.start.taken, job.request.start.rank)[-1]
                table.drawn[cell] = token
                _write(table, [cell], [step], [logprob])
                parting.append(cell)
                continue
            spare = left.get(job.index, job.branches_left)
            others = _others(line, int(table.drawn[cell]), min(config.width - 1, spare))
            left[job.index] = spare - len(others)
            opened += [
                Branch(cell, token, logprob, rank, step) for rank, (token, logprob) in enumerate(others, 1)
            ]
    return Forks(opened, _open(table, opened), parting)


def _others(line: Sequence[tuple[int, float]], taken: int, count: int) -> list[tuple[int, float]]:
    """The ``count`` likeliest tokens but for ``taken``, likeliest first; fewer in a small vocabulary."""
    return [pair for pair in line if pair[0] != taken][:count]


def _write(table: CellTable, cells: Sequence[int], steps: Sequence[int], logprobs: Sequence[float]) -> None:
    """Records tokens that were chosen, not drawn."""
    records = table.telemetry
    index, columns = (on_device(np.array(each), records.device) for each in (cells, steps))
    records[index, columns, COLUMN["logprob"]] = on_device(np.array(logprobs), records.device).to(records)
    records[index, columns, COLUMN["sampling_logprob"]] = 0.0


def _open(table: CellTable, opened: Sequence[Branch]) -> list[int]:
    """Adds branches, each with all of its parent's tokens and draws of its own from here on."""
    children: list[int] = []
    new: dict[int, int] = {}
    try:
        for branch in opened:
            line = table.line(branch.parent)
            job = line.job
            order = job.request.rows - job.branches_left + new.get(job.index, 0)
            new[job.index] = new.get(job.index, 0) + 1
            path = (*line.cell.path, (branch.step, branch.rank))
            cell = replace(line.cell, sample=job.request.cells[0].sample + order, path=path)
            children += table.add(job, [cell], [order])
        if children:
            parents = [branch.parent for branch in opened]
            table.copy(parents, children)
            table.slot[children], table.drawn[children] = (
                table.slot[parents],
                [branch.token for branch in opened],
            )
            steps = [branch.step for branch in opened]
            _write(table, children, steps, [branch.logprob for branch in opened])
            # Whether rounding decides a draw says nothing of the other tokens.
            for child, step in zip(children, steps, strict=True):
                if table.temperature[child]:
                    table.telemetry[child, step, COLUMN["tie"]] = 0.0
    except BaseException:
        table.retire(np.array(children, np.int64))
        raise
    return children
