"""The data that decoding produces and selection consumes: cells, rollouts, pools.

Everything here is immutable and free of torch, so a pool can be built from any backend's texts,
pickled between processes and written as JSON.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, overload

from eglr_selectors.answer_matrix import Entry, matrix_html
from eglr_selectors.cell import Cell
from eglr_selectors.depth_axis import DepthAxis, axis_of, baseline_depth
from eglr_selectors.grading import extract
from eglr_selectors.pool_cost import PoolCost

FinishReason = Literal["stop", "length", "error", "unknown"]
"""Why a rollout ended: an end-of-sequence token or stop string, the token limit, non-finite logits
in the model, or not known (texts from elsewhere)."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What decoding one rollout looked like. Means are over generated tokens; NaN where there is none.

    Attributes:
        mean_entropy: Mean entropy of the plain next-token distribution p_0, nats.
        mean_logprob: Mean log-probability of the drawn tokens at temperature 1, nats, under the
            distribution they were drawn from before temperature and truncation.
        mean_confidence: Mean negative log-probability of the 20 likeliest tokens, nats
            (DeepConf, arXiv 2508.15260).
        gated_tokens: Tokens whose position was recursed.
        recursions: Iterations of the recursion, over all gated tokens.
        converged_tokens: Gated tokens whose recursion met its rule of exit within K_max iterations.
        plain_layer_tokens: Layer applications of the plain pass (layers × tokens), unshared.
        recursion_layer_tokens: Layer applications of the recursion (span × iterations).
        head_evaluations: Final norm and unembedding evaluations, plain and recursed.
        ties: Tokens of which rounding decided: another number of threads, batch or machine may draw others.
        token_confidences: Per-token confidence in generation order; empty unless traced, as all ``token_``
            fields.
        mean_self_certainty: Mean KL divergence from the uniform distribution to the next-token
            distribution, nats (self-certainty, arXiv 2502.18581).
        token_logprobs: Log-probability of each token, as in ``mean_logprob``.
        token_entropies: Entropy of p_0 at each token, nats.
        token_refined_entropies: Entropy of the distribution drawn from, nats; that of p_0 if not gated.
        token_iterations: Iterations at each token; 0 if not gated.
        token_divergences: What each token's last iteration moved by the rule of exit: KL(p_k ‖ p_{k−1}),
            nats, if no other was chosen; 0 if not gated.
        token_self_certainties: What ``mean_self_certainty`` is the mean of.
        token_branch_entropies: Entropy that decided at each token whether to fork, nats; only where
            rollouts branch.
        token_ties: 1 for each of the ``ties``, 0 for other tokens.
        changed_tokens: Tokens that the recursion changed: after the same prefix, the same draw from p_0
            would have given another. ``None`` if not known, as in pools of older versions.
        token_changes: 1 for each of the ``changed_tokens``, 0 for other tokens.
        token_sampling_logprobs: Log-probability of each token under the distribution that it was really drawn
            from, nats: recursed, tempered, truncated and renormalised. 0 where nothing was drawn: in a greedy
            cell, and at the token with which a branch parts from its parent. Empty in pools of older
            versions.
    """

    mean_entropy: float = math.nan
    mean_logprob: float = math.nan
    mean_confidence: float = math.nan
    gated_tokens: int = 0
    recursions: int = 0
    converged_tokens: int = 0
    plain_layer_tokens: int = 0
    recursion_layer_tokens: int = 0
    head_evaluations: int = 0
    ties: int = 0
    token_confidences: tuple[float, ...] = ()
    mean_self_certainty: float = math.nan
    token_logprobs: tuple[float, ...] = ()
    token_entropies: tuple[float, ...] = ()
    token_refined_entropies: tuple[float, ...] = ()
    token_iterations: tuple[int, ...] = ()
    token_divergences: tuple[float, ...] = ()
    token_self_certainties: tuple[float, ...] = ()
    token_branch_entropies: tuple[float, ...] = ()
    token_ties: tuple[int, ...] = ()
    changed_tokens: int | None = None
    token_changes: tuple[int, ...] = ()
    token_sampling_logprobs: tuple[float, ...] = ()

    @property
    def converged_share(self) -> float:
        """Share of gated tokens that converged; NaN if none was gated."""
        return self.converged_tokens / self.gated_tokens if self.gated_tokens else math.nan


@dataclass(frozen=True, slots=True, repr=False)
class Rollout:
    """One generated continuation of a prompt.

    Attributes:
        text: The continuation without its stop string.
        cell: Where in the grid it comes from.
        finish_reason: Why it ended.
        tokens: Generated token ids, the end token included; empty if not known.
        telemetry: How it was decoded; ``None`` if not known.
        score: A verifier's or any other backend's score; ``None`` if there is none.
    """

    text: str
    cell: Cell = field(default_factory=Cell)
    finish_reason: FinishReason = "unknown"
    tokens: tuple[int, ...] = ()
    telemetry: Telemetry | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        if self.finish_reason not in get_args(FinishReason):
            allowed = ", ".join(get_args(FinishReason))
            raise ValueError(f"finish_reason={self.finish_reason!r}: expected one of {allowed}")

    @property
    def truncated(self) -> bool:
        """Whether the token limit cut it off."""
        return self.finish_reason == "length"

    def __repr__(self) -> str:
        length = f", {len(self.tokens)} tokens" if self.tokens else ""
        return f"Rollout({self.cell}, {self.finish_reason}{length}, {_end(self.text)!r})"


@dataclass(frozen=True, slots=True, repr=False)
class RolloutPool:
    """All rollouts of one prompt, in grid order (depth outermost, then temperatures, then samples).

    Of rollouts that branch, each follows those that were there when it forked.

    Attributes:
        rollouts: The rollouts.
        prompt: The prompt they continue, as the model saw it.
        cost: What decoding it cost; ``None`` if not known.
        uses_reference: Whether the reference decided which rollouts there are, so that no selection from
            this pool is a fair strategy.

    Raises:
        ValueError: If its rollouts are on both depth axes.
    """

    rollouts: tuple[Rollout, ...]
    prompt: str = ""
    cost: PoolCost | None = None
    uses_reference: bool = False

    def __post_init__(self) -> None:
        axis_of(rollout.cell for rollout in self.rollouts)

    @property
    def axis(self) -> DepthAxis:
        """The depth axis of its rollouts."""
        return axis_of(rollout.cell for rollout in self.rollouts[:1])

    @property
    def baseline_depth(self) -> int:
        """The level of "temperature alone": span 0, or the deepest of its recurrences."""
        return baseline_depth(rollout.cell for rollout in self.rollouts)

    def __len__(self) -> int:
        return len(self.rollouts)

    def __iter__(self) -> Iterator[Rollout]:
        return iter(self.rollouts)

    @overload
    def __getitem__(self, index: int) -> Rollout: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Rollout, ...]: ...
    @overload
    def __getitem__(self, index: tuple[int, float | None]) -> RolloutPool: ...
    @overload
    def __getitem__(self, index: tuple[int, float | None, int]) -> Rollout: ...

    def __getitem__(self, index: Any) -> Any:
        """A rollout by its place, the samples of a cell by ``pool[depth, temperature]``, or one of them.

        ``pool[4, 0.7]`` is a pool of the rollouts of span 4 (or of 4 recurrences) and temperature 0.7,
        ``pool[4, 0.7, 1]`` the second of them.

        Raises:
            KeyError: If there is no such cell.
            IndexError: If there is no such place.
        """
        if not isinstance(index, tuple):
            return self.rollouts[index]
        chosen = self.indices_of(*index)
        if len(index) == 3:
            return self.rollouts[chosen[0]]
        return dataclasses.replace(self, rollouts=tuple(self.rollouts[i] for i in chosen), cost=None)

    def indices_of(self, span: int, temperature: float | None, sample: int | None = None) -> list[int]:
        """Returns the places of a cell's rollouts.

        Args:
            span: Level of the depth axis, L or R.
            temperature: T of the cell.
            sample: Which of its samples; ``None`` for all.

        Raises:
            KeyError: If there is none.
        """
        found = [
            i
            for i, rollout in enumerate(self.rollouts)
            if (rollout.cell.span, rollout.cell.temperature) == (span, temperature)
            and sample in (None, rollout.cell.sample)
        ]
        if not found:
            wanted = f"{self.axis.level} {span}, temperature {temperature}"
            wanted += "" if sample is None else f", sample {sample}"
            raise KeyError(f"{wanted}: the pool has {self._axes() or 'no grid'}")
        return found

    def _axes(self) -> str:
        """Its depths and temperatures in words; empty where they are not known."""
        cells = [rollout.cell for rollout in self.rollouts]
        temperatures = sorted({cell.temperature for cell in cells if cell.temperature is not None})
        if not temperatures:
            return ""
        levels = ", ".join(map(str, sorted({cell.depth for cell in cells})))
        return f"{self.axis.levels} {levels}; temperatures {', '.join(f'{t:g}' for t in temperatures)}"

    def __repr__(self) -> str:
        tokens = sum(len(rollout.tokens) for rollout in self)
        parts = [f"{len(self)} rollouts", self._axes(), f"{tokens} tokens" if tokens else ""]
        start = self.prompt if len(self.prompt) <= 32 else self.prompt[:31] + "…"
        parts.append(f"prompt {start!r}" if start else "")
        return f"RolloutPool({'; '.join(filter(None, parts))})"

    def _repr_html_(self) -> str:
        """The matrix of answers, for notebooks."""
        answers = [extract(rollout.text) for rollout in self]
        texts = [None if answer is None else answer.text for answer in answers]
        return self.matrix_html(texts, [None if text is None else False for text in texts])

    def matrix_html(
        self, answers: Sequence[str | None], correct: Sequence[bool | None], reference: str | None = None
    ) -> str:
        """Returns the matrix of answers as HTML, depth down, temperatures across, right ones green.

        Args:
            answers: One per rollout, ``None`` where there is none.
            correct: Whether each is right; ``None`` where that is not known.
            reference: The right one, named above the matrix.
        """
        grid, axis = all(rollout.cell.temperature is not None for rollout in self), self.axis
        entries = [
            Entry(
                row=axis.heading(rollout.cell.depth) if grid else "",
                column=_column(rollout.cell) if grid else "",
                answer=answer,
                correct=right,
                detail=f"{rollout.cell}, {rollout.finish_reason}: {_end(rollout.text)}",
            )
            for rollout, answer, right in zip(self, answers, correct, strict=True)
        ]
        caption = f"{len(self)} rollouts" + ("" if reference is None else f"; the answer is {reference}")
        return matrix_html(entries, caption)

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], scores: Iterable[float] | None = None, prompt: str = ""
    ) -> RolloutPool:
        """Makes a pool of texts from any backend.

        Args:
            texts: One continuation per rollout.
            scores: One score per text, higher is better, if a verifier gave any.
            prompt: The prompt that the texts continue.

        Raises:
            ValueError: If the numbers of texts and scores differ.
            TypeError: If ``texts`` is one string, or holds something else than strings.
        """
        if isinstance(texts, str):
            raise TypeError("texts: expected a sequence of strings, not one string")
        texts = list(texts)
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts[{i}]={text!r}: expected a string")
        values: Sequence[float | None] = [None] * len(texts) if scores is None else list(scores)
        if len(values) != len(texts):
            raise ValueError(f"scores: {len(values)} values for {len(texts)} texts")
        return cls(
            tuple(
                Rollout(text, Cell(span=0, temperature=None, sample=i), score=score)
                for i, (text, score) in enumerate(zip(texts, values, strict=True))
            ),
            prompt,
        )

    @classmethod
    def join(cls, pools: Sequence[RolloutPool]) -> RolloutPool:
        """Joins the pools of one prompt in their order; what they cost is added up where all know it.

        Raises:
            ValueError: If there is no pool.
        """
        if not pools:
            raise ValueError("pools: expected at least one")
        if len(pools) == 1:
            return pools[0]
        rollouts = tuple(rollout for pool in pools for rollout in pool)
        costs = [pool.cost for pool in pools if pool.cost is not None]
        total = functools.reduce(operator.add, costs) if len(costs) == len(pools) else None
        return cls(
            rollouts,
            pools[0].prompt,
            cost=total,
            uses_reference=any(pool.uses_reference for pool in pools),
        )

    @property
    def ties(self) -> int | None:
        """Tokens whose choice depends on rounding; ``None`` where no rollout says how it was decoded."""
        known = [rollout.telemetry for rollout in self if rollout.telemetry is not None]
        return sum(telemetry.ties for telemetry in known) if known else None

    @property
    def tie_share(self) -> float:
        """Share of tokens whose choice depends on rounding; NaN where there are no tokens."""
        tokens = sum(len(rollout.tokens) for rollout in self)
        return (self.ties or 0) / tokens if tokens else math.nan

    def to_records(self) -> list[dict[str, Any]]:
        """Returns one JSON-ready mapping per rollout; :func:`rollout_from_record` reads it back."""
        records = [dataclasses.asdict(rollout) for rollout in self.rollouts]
        for record in records:
            cell = record["cell"]
            for name, default in (("path", ()), ("axis", "L")):
                if cell[name] == default:
                    del cell[name]
        return records


def _end(text: str, most: int = 48) -> str:
    """The end of a text, where its answer is."""
    return text if len(text) <= most else "…" + text[1 - most :]


def _column(cell: Cell) -> str:
    return f"T = {cell.temperature:g}" + (f" #{cell.sample}" if cell.sample else "")


def rollout_from_record(record: Mapping[str, Any]) -> Rollout:
    """Rebuilds a rollout from its record; keys that are no field of a rollout are left alone.

    Raises:
        KeyError: If ``text`` or ``cell`` is missing.
    """
    fields: dict[str, Any] | None = record.get("telemetry")
    telemetry = None
    if fields is not None:
        listed = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        telemetry = Telemetry(**{**fields, **listed})
    cell = dict(record["cell"])
    path = tuple((token, rank) for token, rank in cell.pop("path", ()))
    return Rollout(
        text=record["text"],
        cell=Cell(**cell, path=path),
        finish_reason=record.get("finish_reason", "unknown"),
        tokens=tuple(record.get("tokens", ())),
        telemetry=telemetry,
        score=record.get("score"),
    )
