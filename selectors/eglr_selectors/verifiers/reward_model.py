"""Outcome reward models: one figure for a whole solution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from eglr_selectors.options import check_count
from eglr_selectors.pool import Rollout
from eglr_selectors.verifiers.batching import forward_batches, longest_input


@dataclass(frozen=True, eq=False)
class RewardModel:
    """A sequence-classification model with one output, as of Cobbe et al. 2021, arXiv 2110.14168.

    Problem and solution become a chat of two messages in the model's own template. Without its
    template a model's figures mean nothing, so a tokenizer that has none is refused. Solutions
    longer than the model takes get NaN: a cut solution is another solution.

    Attributes:
        load: Returns model and tokenizer; called when something is first scored.
        sigmoid: Give sigmoid(reward), which ``weighted_vote`` can sum, instead of the reward.
        batch_size: How many solutions are scored at once.
    """

    load: Callable[[], tuple[Any, Any]]
    sigmoid: bool = False
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size, low=1)
        if not isinstance(self.sigmoid, bool):
            raise ValueError(f"sigmoid={self.sigmoid!r}: expected True or False")

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        device: str = "cpu",
        dtype: str = "auto",
        trust_remote_code: bool = False,
        **options: Any,
    ) -> RewardModel:
        """Names a model of the hub or a folder; it is loaded when something is first scored."""

        def load() -> tuple[Any, Any]:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer

            loaded = AutoModelForSequenceClassification.from_pretrained(
                model, dtype=dtype, trust_remote_code=trust_remote_code
            )
            tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
            return loaded.to(device).eval(), tokenizer

        return cls(cache(load), **options)

    def score(self, problem: str, rollouts: Sequence[Rollout]) -> list[float]:
        """Returns one reward per rollout, NaN for a solution that is too long.

        Raises:
            ValueError: If the tokenizer has no chat template or the model not one output.
        """
        model, tokenizer = self.load()
        if tokenizer.chat_template is None:
            raise ValueError("reward model: its tokenizer has no chat template")
        if model.config.num_labels != 1:
            raise ValueError(f"reward model: it has {model.config.num_labels} outputs, expected 1")
        sequences = [self._encode(tokenizer, problem, rollout.text) for rollout in rollouts]
        limit = longest_input(model, tokenizer)
        fitting = [i for i, ids in enumerate(sequences) if len(ids) <= limit]
        scores = [math.nan] * len(sequences)
        with _padding(model, [sequences[i] for i in fitting]) as pad:
            batches = forward_batches(model, [sequences[i] for i in fitting], pad, self.batch_size)
            for i, row in batches:
                reward = float(row[0])
                scores[fitting[i]] = _sigmoid(reward) if self.sigmoid else reward
        return scores

    @staticmethod
    def _encode(tokenizer: Any, problem: str, solution: str) -> list[int]:
        chat = [{"role": "user", "content": problem}, {"role": "assistant", "content": solution}]
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        # The template writes the special tokens itself.
        return tokenizer(text, add_special_tokens=False)["input_ids"]


@contextmanager
def _padding(model: Any, sequences: Sequence[Sequence[int]]) -> Iterator[int]:
    """Gives the token to pad with; a model without one gets a token that occurs nowhere, for the while.

    The model finds its last token by what is no padding, so an end token would be overlooked.
    """
    own = model.config.pad_token_id
    used = {token for ids in sequences for token in ids}
    spare = next(token for token in range(len(used) + 1) if token not in used)
    model.config.pad_token_id = spare if own is None else own
    try:
        yield model.config.pad_token_id
    finally:
        model.config.pad_token_id = own


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
