"""Stored pools as training data: one row per rollout, with rewards and group-relative advantages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from lm_eval_eglr.store.reader import Document, Store

SPREAD_FLOOR = 1e-4
"""Added to a group's standard deviation, as TRL's GRPOTrainer does."""


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A rollout as GRPO and its relatives take it.

    Attributes:
        prompt: The prompt as the model saw it.
        completion: The rollout's text.
        prompt_id: Task and document, the same for a whole group.
        completion_ids: Token ids of the completion.
        logprobs: Log-probability of each token, nats, under the distribution that it was drawn from:
            recursed, tempered, truncated, renormalised; 0 in a greedy cell. It is the denominator of the
            importance ratio. ``None`` if the run kept none (``trace=True`` keeps them; versions before
            ``token_sampling_logprobs`` did not).
        reward: 1 for a correct answer, else 0.
        advantage: The reward less the group's mean, over its standard deviation (arXiv 2402.03300,
            section 4.1.2); 0 in a group whose rewards are all equal.
        truncated: Whether the token limit cut it off.
        span: Level of the depth axis of its cell.
        temperature: T of its cell.
        answer: The answer that was read from it, ``None`` if there is none.
        axis: The depth axis: ``L``, spans, or ``R``, recurrences.
    """

    prompt: str
    completion: str
    prompt_id: str
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    reward: float
    advantage: float
    truncated: bool
    span: int
    temperature: float | None
    answer: str | None = None
    axis: str = "L"

    def to_record(self) -> dict[str, Any]:
        """The row as JSON-ready values: what a trainer takes."""
        record = asdict(self)
        del record["answer"]
        record["completion_ids"] = list(self.completion_ids)
        record["logprobs"] = None if self.logprobs is None else list(self.logprobs)
        return record


def training_rows(store: Store) -> Iterator[TrainingRow]:
    """Yields the rollouts of all documents that have a reference, group after group.

    Rollouts whose answer could not be graded are left out: they have no reward.
    """
    for task in store.tasks:
        for document in store.documents(task):
            if document.parsed.reference is not None:
                yield from _group(document)


def count_without_draws(store: Store) -> int:
    """The number of traced rollouts of versions that recorded no log-probabilities of the draw."""
    traces = (rollout.telemetry for stored in store.pools for rollout in stored.pool)
    return sum(bool(t and t.token_logprobs and not t.token_sampling_logprobs) for t in traces)


def _group(document: Document) -> Iterator[TrainingRow]:
    parsed = document.parsed
    rewards = {i: float(correct) for i, correct in enumerate(parsed.correct) if correct is not None}
    advantages = group_advantages(list(rewards.values()))
    for (i, reward), advantage in zip(rewards.items(), advantages, strict=True):
        rollout = parsed[i]
        traced = rollout.telemetry.token_sampling_logprobs if rollout.telemetry is not None else ()
        yield TrainingRow(
            parsed.pool.prompt,
            rollout.text,
            f"{document.key.task}/{document.key.doc_id}",
            rollout.tokens,
            tuple(traced) if rollout.tokens and len(traced) == len(rollout.tokens) else None,
            reward,
            advantage,
            rollout.truncated,
            rollout.cell.span,
            rollout.cell.temperature,
            None if (answer := parsed.answers[i]) is None else answer.text,
            rollout.cell.axis,
        )


def group_advantages(rewards: list[float]) -> list[float]:
    """Returns (reward - mean) / (standard deviation + 1e-4) of a group, with Bessel's correction."""
    if len(rewards) < 2:
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    spread = math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1))
    return [(reward - mean) / (spread + SPREAD_FLOOR) for reward in rewards]
