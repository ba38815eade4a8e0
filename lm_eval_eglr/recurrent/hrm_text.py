"""HRM-Text of transformers: a low and a high stack of layers, iterated in cycles.

A recurrence is one high cycle: ``L_cycles`` passes of the low stack, then one of the high stack. The low
state begins from a learned vector, the high one from the embedding, so nothing is random. With ``prefix_lm``
the tokens of a prompt attend to each other in both directions, and a prompt is read in one piece.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from lm_eval_eglr.decoding.model.kv_cache import cache_argument
from lm_eval_eglr.recurrent.models import RecurrentModel, count_parameters, recurrent_model


@recurrent_model("hrm_text")
class HrmText(RecurrentModel):
    """Latent states are the high and the low one side by side, ``[tokens, 2 · dim]``."""

    def __init__(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Reads the sizes; nothing depends on ``seed``."""
        super().__init__(model, seed)
        config = model.config
        self._inner: Any = model.model
        self._low_cycles = int(config.L_cycles)
        self._cache_argument = cache_argument(self._inner.L_module)
        self.recurrences = int(config.H_cycles)
        self.outer_layers = 0
        self.core_layers = int(config.num_layers_per_stack) * (self._low_cycles + 1)
        self.positions = int(config.max_position_embeddings)
        self.reads_prompts_whole = bool(config.prefix_lm)

    @classmethod
    def recognises(cls, model: PreTrainedModel) -> bool:
        """Whether it has the two stacks and their numbers of cycles."""
        inner = getattr(model, "model", None)
        stacks = all(hasattr(inner, name) for name in ("L_module", "H_module", "z_L_init"))
        return stacks and all(hasattr(model.config, name) for name in ("L_cycles", "H_cycles"))

    def embed(self, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """The scaled embeddings."""
        embedded: Tensor = self._inner.embed_tokens(tokens) * self._inner.embedding_scale
        return embedded

    def begin(self, embedded: Tensor, positions: Tensor) -> Tensor:
        """The embedding, and the learned vector."""
        low = self._inner.z_L_init.to(embedded).expand_as(embedded)
        return torch.cat([embedded, low], -1)

    def iterate(self, embedded: Tensor, states: Tensor, positions: Tensor, step: int, cache: Cache) -> Tensor:
        """A high cycle."""
        high, low = states[None].chunk(2, -1)
        given = {
            "attention_mask": None,
            self._cache_argument: cache,
            "position_embeddings": self._inner.rotary_emb(high, positions[None]),
            "position_ids": positions[None],
        }
        for _ in range(self._low_cycles):
            low = self._inner.L_module(low + high, **given)
        high = self._inner.H_module(high + low, **given)
        return torch.cat([high, low], -1)[0]

    def predict(self, states: Tensor, positions: Tensor, wanted: Tensor, cache: Cache) -> Tensor:
        """The head on the high state."""
        logits: Tensor = self.model.get_output_embeddings()(states[wanted].chunk(2, -1)[0])
        return logits

    def own_logits(self, tokens: Tensor, recurrences: int, states: Tensor) -> Tensor:
        """``forward`` with that many high cycles, all tokens being a prompt."""
        config = self.model.config
        before, config.H_cycles = config.H_cycles, recurrences
        kinds = torch.ones_like(tokens)[None] if self.reads_prompts_whole else None
        try:
            output = self.model(tokens[None], token_type_ids=kinds, use_cache=False)
        finally:
            config.H_cycles = before
        logits: Tensor = output.logits[0]
        return logits

    def layer_parameters(self) -> float:
        """Mean over the layers that an iteration applies: those of the low stack several times."""
        low, high = (count_parameters(stack) for stack in (self._inner.L_module, self._inner.H_module))
        return (self._low_cycles * low + high) / self.core_layers
