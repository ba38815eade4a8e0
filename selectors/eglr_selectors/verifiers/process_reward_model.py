"""Process reward models: one figure for every step of a solution, and one made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from eglr_selectors.options import check_count, check_name
from eglr_selectors.pool import Rollout
from eglr_selectors.verifiers.batching import forward_batches, longest_input
from eglr_selectors.verifiers.step_conventions import CONVENTIONS
from eglr_selectors.verifiers.step_heads import load_process_model

AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda steps: steps[-1],
    "min": min,
    "mean": lambda steps: math.fsum(steps) / len(steps),
    "prod": math.prod,
}


@dataclass(frozen=True, eq=False)
class ProcessRewardModel:
    """A model that judges every step, as of Lightman et al. 2024, arXiv 2305.20050.

    Attributes:
        load: Returns model and tokenizer; called when something is first scored.
        convention: How steps are laid out: a name of :data:`CONVENTIONS`.
        aggregation: What becomes of a solution's steps: ``last``, ``min``, ``mean`` or ``prod``.
        batch_size: How many solutions are scored at once.
    """

    load: Callable[[], tuple[Any, Any]]
    convention: str = "qwen"
    aggregation: str = "min"
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_name("convention", self.convention, list(CONVENTIONS))
        check_name("aggregation", self.aggregation, list(AGGREGATIONS))
        check_count("batch_size", self.batch_size, low=1)

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        convention: str = "qwen",
        device: str = "cpu",
        dtype: str = "auto",
        trust_remote_code: bool = False,
        **options: Any,
    ) -> ProcessRewardModel:
        """Names a model of the hub or a folder; it is loaded when something is first scored.

        Qwen2.5-Math-PRM brings its head as code of its own: it needs ``trust_remote_code``.
        """
        check_name("convention", convention, list(CONVENTIONS))

        def load() -> tuple[Any, Any]:
            from transformers import AutoTokenizer

            loaded = load_process_model(
                model, CONVENTIONS[convention].head, dtype=dtype, trust_remote_code=trust_remote_code
            )
            tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
            return loaded.to(device).eval(), tokenizer

        return cls(cache(load), convention=convention, **options)

    def score(self, problem: str, rollouts: Sequence[Rollout]) -> list[float]:
        """Returns one figure in [0, 1] per rollout, NaN where :meth:`score_steps` gives none."""
        aggregate = AGGREGATIONS[self.aggregation]
        return [aggregate(steps) if steps else math.nan for steps in self.score_steps(problem, rollouts)]

    def score_steps(self, problem: str, rollouts: Sequence[Rollout]) -> list[list[float]]:
        """Returns the probability that each step is good; none for a solution that the model cannot
        take: too long, empty, or with the step mark in its own text.

        Raises:
            ValueError: If the model's outputs do not fit the convention.
        """
        model, tokenizer = self.load()
        convention = CONVENTIONS[self.convention]
        limit = longest_input(model, tokenizer)
        layouts = {}
        for i, rollout in enumerate(rollouts):
            text = rollout.text.strip()
            steps = [step.strip() for step in text.split(convention.separator)] if text else []
            ids, positions = convention.lay_out(tokenizer, problem, steps) if steps else ([], [])
            if steps and len(positions) == len(steps) and len(ids) <= limit:
                layouts[i] = ids, positions
        kept = list(layouts)
        judged: list[list[float]] = [[] for _ in rollouts]
        sequences = [layouts[i][0] for i in kept]
        for place, outputs in forward_batches(model, sequences, 0, self.batch_size):
            positions = layouts[kept[place]][1]
            judged[kept[place]] = convention.judge(tokenizer, outputs[positions]).tolist()
        return judged
