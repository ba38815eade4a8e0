"""What is alive during decoding: jobs, the cells of a job, and the rows that cells share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from eglr_selectors.pool import Cell, FinishReason, Rollout, Telemetry

from lm_eval_eglr.decoding.config import SamplingConfig
from lm_eval_eglr.decoding.noise import DrawStream
from lm_eval_eglr.decoding.stopping import StopRule


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and how to continue it.

    Attributes:
        tokens: Prompt token ids, at least one.
        cells: The grid cells to decode.
        max_new_tokens: Length limit, tokens.
        stop: Stop strings.
        sampling: How tokens are drawn.
        document: Key of the draws; equal keys give equal draws.
        prompt: The prompt's text, kept for the pool.
    """

    tokens: tuple[int, ...]
    cells: tuple[Cell, ...]
    max_new_tokens: int
    stop: StopRule
    sampling: SamplingConfig
    document: str
    prompt: str = ""


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


@dataclass(slots=True)
class Branch:
    """One cell of a job while it is decoded."""

    cell: Cell
    order: int  # place of the cell in the request
    stream: DrawStream
    tokens: list[int] = field(default_factory=list)
    records: list[TokenRecord] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def rollout(self, text: str, depth: int, trace: bool) -> Rollout:
        """The finished rollout; ``depth`` is the model's number of layers."""
        assert self.finish_reason is not None
        count = len(self.records)
        columns: Any = TokenRecord(*zip(*self.records, strict=True)) if count else TokenRecord(*([()] * 9))  # type: ignore[arg-type]

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
            mean_self_certainty=mean(columns.self_certainty),
        )
        if trace:
            telemetry = replace(
                telemetry,
                token_confidences=columns.confidence,
                token_logprobs=columns.logprob,
                token_entropies=columns.entropy,
                token_refined_entropies=columns.refined_entropy,
                token_iterations=columns.iterations,
                token_divergences=columns.divergence,
            )
        return Rollout(text, self.cell, self.finish_reason, tuple(self.tokens), telemetry)


@dataclass(slots=True)
class Job:
    """A request while it is decoded, with the cost of its shared work."""

    request: Request
    number: int
    live: int  # cells that are not finished
    finished: list[tuple[int, Rollout]] = field(default_factory=list)
    row_steps: int = 0
    plain_layer_tokens: int = 0
    recursion_layer_tokens: int = 0
    head_evaluations: int = 0


@dataclass(slots=True)
class Row:
    """A distinct prefix: the cells of one job that have drawn the same tokens so far."""

    job: Job
    branches: list[Branch]
    token: int  # the newest token, not yet run
    position: int  # its position

    def spans(self) -> list[int]:
        """The distinct spans among the row's cells, ascending."""
        return sorted({branch.cell.span for branch in self.branches})
