"""What is alive during decoding: jobs, the cells of a job, and the rows that cells share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from eglr_selectors.pool import Cell, FinishReason, Rollout, RolloutPool, Telemetry
from torch import Tensor

from lm_eval_eglr.decoding.config import BranchingConfig, SamplingConfig
from lm_eval_eglr.decoding.costs import CostModel
from lm_eval_eglr.decoding.items import Item
from lm_eval_eglr.decoding.noise import DrawStream
from lm_eval_eglr.decoding.stopping import StopRule

Place = tuple[int, int]  # a cell as (number of its row, place in the row's branches)


class TokenRecord(NamedTuple):
    """Telemetry of one generated token; see :class:`eglr_selectors.pool.Telemetry` for the terms."""

    entropy: float
    refined_entropy: float
    logprob: float
    confidence: float
    self_certainty: float
    iterations: int
    divergence: float
    converged: bool
    tie: bool = False
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """A rollout that parts from another, finished one.

    Attributes:
        tokens: The generated tokens that both have; they are the last of its request's ``tokens``.
        records: Telemetry of these tokens.
        gates: Entropies that decided at these tokens whether to fork, nats.
        taken: The token that the other one has next.
        rank: This one has the ``rank``-th likeliest of the other tokens there.
    """

    tokens: tuple[int, ...]
    records: tuple[TokenRecord, ...]
    gates: tuple[float, ...]
    taken: int
    rank: int


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
        start: Where its only cell parts from a rollout that is there; ``None`` begins after the prompt.
        keeps: Whether the prompt is kept for other requests of the document, until it is released.
    """

    tokens: tuple[int, ...]
    cells: tuple[Cell, ...]
    max_new_tokens: int
    stop: StopRule
    sampling: SamplingConfig
    document: str
    prompt: str = ""
    branching: BranchingConfig | None = None
    start: Start | None = None
    keeps: bool = False

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt, without those of ``start``."""
        return len(self.tokens) - (0 if self.start is None else len(self.start.tokens))

    @property
    def rows(self) -> int:
        """Most rows that it can need at once."""
        return len(self.cells) if self.branching is None else self.branching.most

    def branches(self) -> list[Branch]:
        """Its cells as they begin."""
        begun = [
            Branch(cell, order, DrawStream(self.sampling, self.document, cell))
            for order, cell in enumerate(self.cells)
        ]
        if self.start is not None:
            for branch in begun:
                branch.tokens = list(self.start.tokens)
                branch.records = list(self.start.records)
                branch.gates = list(self.start.gates)
        return begun


@dataclass(slots=True)
class Branch:
    """One cell of a job while it is decoded."""

    cell: Cell
    order: int  # place of the cell in the request
    stream: DrawStream
    tokens: list[int] = field(default_factory=list)
    records: list[TokenRecord] = field(default_factory=list)
    gates: list[float] = field(default_factory=list)  # what decided at each token whether to fork, nats
    last_fork: int | None = None  # number of the token at which it last forked or parted
    finish_reason: FinishReason | None = None

    def rollout(self, text: str, depth: int, trace: bool) -> Rollout:
        """The finished rollout; ``depth`` is the model's number of layers."""
        assert self.finish_reason is not None
        count = len(self.records)
        empty = [()] * len(TokenRecord._fields)
        columns: Any = TokenRecord(*(zip(*self.records, strict=True) if count else empty))

        def mean(values: tuple[float, ...]) -> float:
            return math.fsum(values) / count if count else math.nan

        iterations = sum(columns.iterations)
        telemetry = Telemetry(
            mean_entropy=mean(columns.entropy),
            mean_logprob=mean(columns.logprob),
            mean_confidence=mean(columns.confidence),
            gated_tokens=sum(number > 0 for number in columns.iterations),
            recursions=iterations,
            converged_tokens=sum(columns.converged),
            plain_layer_tokens=depth * count,
            recursion_layer_tokens=self.cell.span * iterations,
            head_evaluations=count + iterations,
            ties=sum(columns.tie),
            changed_tokens=sum(columns.changed),
            mean_self_certainty=mean(columns.self_certainty),
        )
        if trace or self.gates:  # a rollout that branches may be continued from its tokens' telemetry
            telemetry = replace(
                telemetry,
                token_confidences=columns.confidence,
                token_logprobs=columns.logprob,
                token_entropies=columns.entropy,
                token_refined_entropies=columns.refined_entropy,
                token_iterations=columns.iterations,
                token_divergences=columns.divergence,
                token_self_certainties=columns.self_certainty,
                token_branch_entropies=tuple(self.gates),
                token_ties=tuple(map(int, columns.tie)),
                token_changes=tuple(map(int, columns.changed)),
            )
        return Rollout(text, self.cell, self.finish_reason, tuple(self.tokens), telemetry)


@dataclass(slots=True)
class Job:
    """A request while it is decoded, with the cost of its shared work."""

    request: Request
    number: int
    live: int  # cells that are not finished
    spare: int = 0  # branches that may still be opened
    finished: list[tuple[int, Rollout]] = field(default_factory=list)
    row_passes: int = 0  # its live rows, summed over the passes
    passes: int = 0  # from its first row to its last
    row_steps: int = 0
    plain_layer_tokens: int = 0
    recursion_layer_tokens: int = 0
    head_evaluations: int = 0

    @classmethod
    def begun(cls, request: Request, number: int) -> Job:
        """A request that nothing has been decoded of."""
        cells = len(request.cells)
        return cls(request, number, live=cells, spare=request.rows - cells)

    def rows(self, share: bool) -> list[Row]:
        """The rows that it begins with: one for all cells, or one for each."""
        branches = self.request.branches()
        groups = [branches] if share else [[branch] for branch in branches]
        prompt = self.request.tokens
        return [Row(self, group, prompt[-1], len(prompt) - 1) for group in groups]

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
class Pending:
    """What is known so far of a row's next token.

    Attributes:
        plain: ln p_0, ``[vocab]``.
        entropy: Of p_0, nats.
        items: The spans among its cells that are or were recursed, none if the row is not gated.
    """

    plain: Tensor
    entropy: float
    items: list[Item[Row]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all its cells can draw."""
        return all(item.logprobs is not None for item in self.items)


@dataclass(slots=True, eq=False)
class Row:
    """A distinct prefix: the cells of one job that have drawn the same tokens so far."""

    job: Job
    branches: list[Branch]
    token: int  # the newest token
    position: int  # its position
    pending: Pending | None = None  # nothing before the newest token has been run

    @property
    def length(self) -> int:
        """Positions whose keys and values are in the cache."""
        return self.position + (self.pending is not None)

    def spans(self) -> list[int]:
        """The distinct spans among the row's cells, ascending."""
        return sorted({branch.cell.span for branch in self.branches})

    def sequence(self) -> list[int]:
        """All its tokens: the prompt's and the generated ones, the newest included."""
        request = self.job.request
        return [*request.tokens[: request.prompt_length], *self.branches[0].tokens]

    def from_the_start(self) -> Row:
        """Its cells before their first token; they draw the same tokens again."""
        orders = {branch.order for branch in self.branches}
        request = self.job.request
        branches = [branch for branch in request.branches() if branch.order in orders]
        return Row(self.job, branches, request.tokens[-1], len(request.tokens) - 1)


@dataclass(slots=True)
class Done:
    """What a step finished.

    Attributes:
        jobs: Those whose last rollout ended.
        rollouts: Number of rollouts that ended.
        tokens: Number of tokens drawn.
        surplus: Forks that must wait for room.
    """

    jobs: list[Job] = field(default_factory=list)
    rollouts: int = 0
    tokens: int = 0
    surplus: list[Row] = field(default_factory=list)
