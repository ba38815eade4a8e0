"""The recurrent-depth model that ships as ``demo-recurrent``, as transformers loads it.

Prelude, adapter on [state, embedded input], core block iterated r times, coda, head: the shape of "Scaling up
Test-Time Compute with Latent Reasoning" (arXiv 2502.05171), under the public names of its authors' model, so
that what decodes Huginn decodes this. It differs in three ways that suit a small model: states begin at zero,
so that nothing is drawn; blocks have a norm before attention and MLP only; and every state that an iteration
gives is normed.

Importing this module registers the model with transformers' ``AutoConfig`` and ``AutoModelForCausalLM``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from lm_eval_eglr.recurrent.demo_student_layers import Parts, RecurrentStudentConfig, Rotation


@dataclass
class RecurrentStudentOutput(CausalLMOutputWithPast):
    """What a pass gives, the cache by the name that transformers' release has for it.

    Attributes:
        latent_states: Last states, as :meth:`RecurrentStudentForCausalLM.predict_from_latents` takes them,
            ``[batch, tokens, dim]``.
    """

    latent_states: Tensor | None = None


# Transformers 5.24 renamed the field, and warns of the former name.
CACHE = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"


class RecurrentStudentForCausalLM(PreTrainedModel, GenerationMixin):
    """The model.

    A cache numbers its layers as they run: prelude, coda, then the layers of each iteration. So a
    ``DynamicCache`` keeps the keys and values of every iteration apart.
    """

    config_class = RecurrentStudentConfig
    base_model_prefix = "transformer"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _no_split_modules = ["Block"]  # noqa: RUF012
    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}  # noqa: RUF012

    def __init__(self, config: RecurrentStudentConfig) -> None:
        super().__init__(config)
        self.transformer = Parts(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embedding table."""
        return self.transformer.wte

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.lm_head

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        # ``generate`` would make a cache of a fixed number of layers; ours grows with ``num_steps``.
        return False

    def initialize_state(self, input_embeds: Tensor) -> Tensor:
        """The state before the first iteration, zero at every position: ``[batch, tokens, dim]``."""
        return torch.zeros_like(input_embeds)

    def embed_inputs(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        **_: Any,
    ) -> tuple[Tensor, int]:
        """The prelude.

        Args:
            input_ids: ``[batch, tokens]``.
            attention_mask: Which columns each token attends to, boolean and broadcast to ``[batch, 1, tokens,
                columns]``; causal by default.
            position_ids: ``[batch or 1, tokens]``; by default they go on from what the cache holds.
            past_key_values: The cache.

        Returns:
            What is injected into every iteration, ``[batch, tokens, dim]``, and the number of the last layer
            of the cache that comes before the iterations.
        """
        rotation = self._rotation(input_ids, position_ids, past_key_values)
        x = self.transformer.wte(input_ids)
        for number, block in enumerate(self.transformer.prelude):
            x = block(x, rotation, number, attention_mask, past_key_values)
        return self.transformer.ln_prelude(x), self.transformer.outer_layers - 1

    def iterate_one_step(
        self,
        input_embeds: Tensor,
        input_states: Tensor,
        position_ids: Tensor | None = None,
        block_idx: int | Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        current_step: int = 0,
        **_: Any,
    ) -> tuple[Tensor, int, int]:
        """One iteration of the core block.

        Args:
            input_embeds: What :meth:`embed_inputs` gave, ``[batch, tokens, dim]``.
            input_states: The states before, of the same shape.
            position_ids: As for :meth:`embed_inputs`, but counted from 0 by default.
            block_idx: Number of the layer of the cache that came last.
            attention_mask: As for :meth:`embed_inputs`.
            past_key_values: The cache.
            current_step: How many iterations came before.

        Returns:
            The next states, the number of the last layer, and how many iterations have been made.
        """
        rotation = self._rotation(input_embeds, position_ids, None)
        number = int(block_idx) if block_idx is not None else -1
        x = self.transformer.adapter(torch.cat([input_states, input_embeds], dim=-1))
        for block in self.transformer.core_block:
            number += 1
            x = block(x, rotation, number, attention_mask, past_key_values)
        return self.transformer.ln_core(x), number, current_step + 1

    def predict_from_latents(
        self,
        latents: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> RecurrentStudentOutput:
        """The coda and the head; arguments are as for :meth:`iterate_one_step`.

        Args:
            latents: The states, ``[batch, tokens, dim]``.
            logits_to_keep: How many of the last tokens have logits; 0 for all.
        """
        rotation = self._rotation(latents, position_ids, None)
        x = self.transformer.ln_f(latents)
        for number, block in enumerate(self.transformer.coda, len(self.transformer.prelude)):
            x = block(x, rotation, number, attention_mask, past_key_values)
        logits = self.lm_head(self.transformer.ln_f(x[:, -logits_to_keep:])).float()
        cached: dict[str, Any] = {CACHE: past_key_values}
        return RecurrentStudentOutput(logits=logits, latent_states=latents, **cached)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        input_states: Tensor | None = None,
        num_steps: int | tuple[int, int] | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        cache: Cache | None = None,
        **_: Any,
    ) -> RecurrentStudentOutput:
        """Runs tokens through prelude, iterations and coda.

        Args:
            input_ids: ``[batch, tokens]``.
            attention_mask: Which tokens are no padding, those in the cache included, ``[batch, columns]``.
            position_ids: ``[batch or 1, tokens]``; by default they go on from what the cache holds.
            past_key_values: The cache of what came before.
            input_states: States before the first iteration, ``[batch, tokens, dim]``; by default
                :meth:`initialize_state`.
            num_steps: Iterations r; ``config.mean_recurrence`` by default. A pair counts those that have no
                gradient, then those that have one: backpropagation that is truncated.
            labels: Token ids, -100 where there is none, ``[batch, tokens]``; each is predicted from the
                tokens before it.
            use_cache: Whether a cache is made if none is given.
            logits_to_keep: How many of the last tokens have logits; 0 for all.
            cache: ``past_key_values`` by the name that ``generate`` of transformers 5.24 has for it.

        Raises:
            ValueError: If ``num_steps`` is no number of iterations, or not the one that filled the cache.
        """
        detached, steps = _steps(self.config.mean_recurrence if num_steps is None else num_steps)
        past_key_values = cache if past_key_values is None else past_key_values
        if past_key_values is None and (self.config.use_cache if use_cache is None else use_cache):
            past_key_values = DynamicCache()
        self._check_cache(past_key_values, steps)
        if position_ids is None:
            position_ids = _positions(input_ids, past_key_values)
        mask = _attended(attention_mask, input_ids.shape[1])
        shared: dict[str, Any] = {
            "position_ids": position_ids,
            "attention_mask": mask,
            "past_key_values": past_key_values,
        }
        embedded, block_idx = self.embed_inputs(input_ids, **shared)
        states = self.initialize_state(embedded) if input_states is None else input_states
        made = 0
        with torch.set_grad_enabled(torch.is_grad_enabled() and not detached):
            for _step in range(detached):
                states, block_idx, made = self.iterate_one_step(
                    embedded, states, block_idx=block_idx, current_step=made, **shared
                )
        for _step in range(steps - detached):
            states, block_idx, made = self.iterate_one_step(
                embedded, states, block_idx=block_idx, current_step=made, **shared
            )
        output = self.predict_from_latents(
            states, logits_to_keep=0 if labels is not None else logits_to_keep, **shared
        )
        if labels is not None and output.logits is not None:
            predicted = output.logits[:, :-1].flatten(0, 1)
            output.loss = F.cross_entropy(predicted, labels[:, 1:].flatten(), ignore_index=-100)
        return output

    def _rotation(self, like: Tensor, position_ids: Tensor | None, cache: Cache | None) -> Rotation:
        """Cosines and sines at the positions; computed anew, for no table can be too short."""
        if position_ids is None:
            position_ids = _positions(like, cache)
        half = self.config.hidden_size // self.config.num_attention_heads // 2
        exponents = torch.arange(half, device=position_ids.device, dtype=torch.float32) / half
        angles = position_ids[..., None].float() * self.config.rope_theta**-exponents
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        dtype = self.lm_head.weight.dtype
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def _check_cache(self, cache: Cache | None, steps: int) -> None:
        if not isinstance(cache, DynamicCache) or not cache.get_seq_length():
            return
        filled = (len(cache.layers) - self.transformer.outer_layers) // len(self.transformer.core_block)
        if filled != steps:
            raise ValueError(
                f"num_steps={steps}: the cache was filled with num_steps={filled}; expected that"
            )


def _steps(num_steps: Any) -> tuple[int, int]:
    """How many iterations have no gradient, and how many there are."""
    counts = num_steps if isinstance(num_steps, (tuple, list)) else (0, num_steps)
    numbers = [each.item() if isinstance(each, Tensor) and each.numel() == 1 else each for each in counts]
    if len(numbers) == 2 and all(type(each) is int and each >= 0 for each in numbers) and any(numbers):
        return int(numbers[0]), int(numbers[0] + numbers[1])
    raise ValueError(
        f"num_steps={num_steps}: expected an integer >= 1, or a pair of integers >= 0 whose sum is >= 1"
    )


def _positions(like: Tensor, cache: Cache | None) -> Tensor:
    """Positions that go on from what the cache holds, ``[1, tokens]``."""
    past = cache.get_seq_length() if cache is not None else 0
    return torch.arange(past, past + like.shape[1], device=like.device)[None]


def _attended(attention_mask: Tensor | None, tokens: int) -> Tensor | None:
    """Which columns each token attends to, ``[batch, 1, tokens, columns]``; ``None`` without padding.

    Padding attends to itself: kernels differ in what they give a token that attends to nothing.
    """
    if attention_mask is None or bool(attention_mask.all()):
        return None
    columns = attention_mask.shape[1]
    causal = torch.ones(tokens, columns, dtype=torch.bool, device=attention_mask.device).tril(
        columns - tokens
    )
    itself = torch.eye(columns, dtype=torch.bool, device=attention_mask.device)[columns - tokens :]
    return ((attention_mask[:, None, :].bool() & causal) | itself)[:, None]


AutoConfig.register(RecurrentStudentConfig.model_type, RecurrentStudentConfig)
AutoModelForCausalLM.register(RecurrentStudentConfig, RecurrentStudentForCausalLM)
