"""What is asked of the engine, and what it keeps of it while it is decoded: requests, jobs, their cost."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from eglr_selectors.pool import Cell, PoolCost, Rollout, RolloutPool

from lm_eval_eglr.decoding.config import BranchingConfig, SamplingConfig
from lm_eval_eglr.decoding.stopping import StopRule


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a new rollout branches off a finished one.

    Attributes:
        tokens: The generated tokens that both have; they are the last of its request's ``tokens``.
        records: Their telemetry, ``[tokens, fields]``, see :mod:`lm_eval_eglr.decoding.telemetry`.
        taken: The parent's token at the branch point.
        rank: The new rollout has the ``rank``-th likeliest of the other tokens there.
    """

    tokens: tuple[int, ...]
    records: np.ndarray = field(compare=False)
    taken: int = 0
    rank: int = 1


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and how to continue it.

    Attributes:
        tokens: Prompt token ids, at least one; the tokens of ``start`` follow them.
        cells: The grid cells to decode.
        max_new_tokens: Length limit, tokens.
        stop: Stop strings.
        sampling: How tokens are drawn.
        document: Key of the draws; equal keys give equal draws.
        prompt: The prompt's text, kept for the pool.
        branching: When its only cell forks; ``None`` never.
        start: Where its only cell branches off a finished rollout; ``None`` begins after the prompt.
        keeps: Whether the prompt is kept for other requests of the document, until it is released.
        pool_rows: Most rows that any request of its prompt can need. In a batch of no more it is decoded
            beside requests of its prompt only, so that nothing else decides the last bits of its floats.
    """

    tokens: tuple[int, ...]
    cells: tuple[Cell, ...]
    max_new_tokens: int
    stop: StopRule
    sampling: SamplingConfig
    document: str
    prompt: str = ""
    branching: BranchingConfig | None = None
    start: ResumePoint | None = None
    keeps: bool = False
    pool_rows: int = 0

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt, without those of ``start``."""
        return len(self.tokens) - (0 if self.start is None else len(self.start.tokens))

    @property
    def rows(self) -> int:
        """Most rows that it can need at once."""
        return len(self.cells) if self.branching is None else self.branching.most

    @property
    def is_preemptible(self) -> bool:
        """Whether a row can wait with its tokens while others of the request go on.

        Not where rollouts branch: which of them may is decided token by token over the whole pool.
        """
        return self.branching is None


@dataclass(frozen=True, slots=True)
class CostModel:
    """The sizes of a model that decide what a token costs.

    Attributes:
        depth: Number of decoder layers.
        layer_parameters: Parameters of one layer that a token goes through.
        head_parameters: Those of the final norm and the unembedding.
    """

    depth: int
    layer_parameters: float
    head_parameters: float

    def flops(self, layer_tokens: int, head_evaluations: int) -> float:
        """Two operations per parameter and application; attention over the context is left out."""
        return 2.0 * (layer_tokens * self.layer_parameters + head_evaluations * self.head_parameters)

    def pool_cost(
        self,
        *,
        prompt_tokens: int,
        tokens: int,
        rows: int,
        plain_layer_tokens: int,
        recursion_layer_tokens: int,
        head_evaluations: int,
    ) -> PoolCost:
        """Completes the counts of a pool by their operations; see :class:`PoolCost` for the terms."""
        layer_tokens = plain_layer_tokens + recursion_layer_tokens
        return PoolCost(
            prompt_tokens=prompt_tokens,
            tokens=tokens,
            rows=rows,
            plain_layer_tokens=plain_layer_tokens,
            recursion_layer_tokens=recursion_layer_tokens,
            head_evaluations=head_evaluations,
            flops=self.flops(layer_tokens, head_evaluations),
            plain_flops=self.flops(self.depth * (prompt_tokens - 1 + tokens), tokens),
            flops_per_layer_token=self.flops(1, 0),
            flops_per_head_evaluation=self.flops(0, 1),
        )

    def joined(self, parts: Sequence[PoolCost], tokens: int) -> PoolCost:
        """The cost of a pool that was decoded in several rounds; work that was done twice counts twice.

        Args:
            parts: Of the rounds; the first one began at the prompt.
            tokens: Tokens over all rollouts, as if nothing had been shared.
        """
        return self.pool_cost(
            prompt_tokens=parts[0].prompt_tokens,
            tokens=tokens,
            rows=sum(part.rows for part in parts),
            plain_layer_tokens=sum(part.plain_layer_tokens for part in parts),
            recursion_layer_tokens=sum(part.recursion_layer_tokens for part in parts),
            head_evaluations=sum(part.head_evaluations for part in parts),
        )


@dataclass(slots=True, eq=False)
class Job:
    """A request while it is decoded, with the cost of its shared work.

    Attributes:
        request: The request.
        number: Its number in the run.
        index: Its line in the tables of the tree.
        live: Cells that are not finished.
        branches_left: Branches that may still be opened.
        finished: Its finished rollouts, with their places in the request.
        row_passes: Its live rows, summed over the passes.
        passes: Passes from its first row to its last.
    """

    request: Request
    number: int
    index: int
    live: int
    branches_left: int
    finished: list[tuple[int, Rollout]] = field(default_factory=list)
    row_passes: int = 0
    passes: int = 0
    row_steps: int = 0
    plain_layer_tokens: int = 0
    recursion_layer_tokens: int = 0
    head_evaluations: int = 0

    def pool(self, costs: CostModel) -> RolloutPool:
        """Its finished rollouts in the order of its cells, with their cost."""
        rollouts = tuple(rollout for _, rollout in sorted(self.finished, key=lambda entry: entry[0]))
        cost = costs.pool_cost(
            prompt_tokens=len(self.request.tokens),
            tokens=sum(len(rollout.tokens) for rollout in rollouts),
            rows=self.row_steps,
            plain_layer_tokens=self.plain_layer_tokens,
            recursion_layer_tokens=self.recursion_layer_tokens,
            head_evaluations=self.head_evaluations,
        )
        return RolloutPool(rollouts, self.request.prompt, cost)


@dataclass(slots=True)
class WaitingRow:
    """A row that has no slot: cells of a job that have drawn the same tokens."""

    job: Job
    cells: list[int]


@dataclass(slots=True)
class StepResult:
    """What a step finished.

    Attributes:
        tokens: Number of tokens drawn.
        rollouts: Number of rollouts that ended.
    """

    tokens: int = 0
    rollouts: int = 0


class DocumentKeys:
    """Keys of the draws: equal prompts get equal keys, repetitions of a prompt keys of their own."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def key(self, tokens: Sequence[int], document: str = "") -> str:
        """The key of a prompt's next occurrence.

        Args:
            tokens: The prompt's token ids.
            document: Tells equal prompts of different documents apart, where they have a name of their own;
                then their keys do not depend on which of them this process has seen.
        """
        text = f"{document}|{','.join(map(str, tokens))}"
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        self._seen[digest] += 1
        return f"{digest}:{self._seen[digest] - 1}"
