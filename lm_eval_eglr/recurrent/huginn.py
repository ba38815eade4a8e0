"""Huginn and models that answer to the same public calls: ``embed_inputs``, ``iterate_one_step``,
``predict_from_latents``.

Source: arXiv 2502.05171, https://github.com/seal-rg/recurrent-pretraining. Its remote code is called as its
authors wrote it; nothing of it is copied here. Its positions go by ``position_ids``, which it squeezes, so a
batch is laid out as one sequence.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache, PreTrainedModel

from lm_eval_eglr.decoding.model.layer_stack import UnsupportedModelError
from lm_eval_eglr.recurrent.latent import LatentStream
from lm_eval_eglr.recurrent.models import RecurrentModel, count_parameters, on_wanted, recurrent_model

CALLS = ("embed_inputs", "iterate_one_step", "predict_from_latents")


@recurrent_model("huginn")
class Huginn(RecurrentModel):
    """Prelude, core block and coda in ``model.transformer``, and sizes in the config under Huginn's names."""

    def __init__(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Reads the sizes; ``seed`` is that of the latent states.

        Raises:
            UnsupportedModelError: If it injects noise while it iterates, or a size is missing.
        """
        super().__init__(model, seed)
        self._model: Any = model
        config, name = model.config, type(model).__name__
        try:
            self.recurrences = int(config.mean_recurrence)
            prelude, core, coda = (
                int(getattr(config, f"n_layers_in_{part}")) for part in ("prelude", "recurrent_block", "coda")
            )
            std = float(config.init_values["std"])
            dim = int(config.hidden_size)
        except AttributeError as error:
            raise UnsupportedModelError(
                f"{name} has Huginn's calls, but its config not its sizes: {error}"
            ) from error
        if getattr(config, "test_time_noise", 0):
            raise UnsupportedModelError(
                f"{name}: config.test_time_noise={config.test_time_noise} adds noise from a global generator "
                "at every iteration; expected 0"
            )
        self.outer_layers, self.core_layers, self.predict_layers = prelude + coda, core, coda
        self.positions = getattr(config, "block_size", None) or getattr(
            config, "max_position_embeddings", None
        )
        # As its initialize_state scales it.
        scale = float(getattr(model, "emb_scale", 1.0))
        self._stream = LatentStream(dim, std * scale, seed=seed)

    @classmethod
    def recognises(cls, model: PreTrainedModel) -> bool:
        """Whether it has the three calls."""
        return all(callable(getattr(model, name, None)) for name in CALLS)

    def embed(self, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """``embed_inputs``."""
        embedded, self._block = self._model.embed_inputs(
            tokens[None], position_ids=positions[None], past_key_values=cache
        )
        return embedded[0]

    def begin(self, embedded: Tensor, positions: Tensor) -> Tensor:
        """Truncated Gaussian noise by position, of the model's own standard deviation."""
        return self._stream.states(positions, embedded)

    def iterate(self, embedded: Tensor, states: Tensor, positions: Tensor, step: int, cache: Cache) -> Tensor:
        """``iterate_one_step``."""
        states, _, _ = self._model.iterate_one_step(
            embedded[None],
            states[None],
            position_ids=positions[None],
            block_idx=self._block + step * self.core_layers,
            past_key_values=cache,
            current_step=step,
        )
        return states[0]

    def predict(self, states: Tensor, positions: Tensor, wanted: Tensor, cache: Cache) -> Tensor:
        """``predict_from_latents``, its head on the wanted tokens only."""
        handle = on_wanted(self.model.get_output_embeddings(), wanted)
        try:
            output = self._model.predict_from_latents(
                states[None], position_ids=positions[None], past_key_values=cache
            )
        finally:
            handle.remove()
        logits: Tensor = output.logits[0]
        return logits

    def own_logits(self, tokens: Tensor, recurrences: int, states: Tensor) -> Tensor:
        """``forward`` with ``num_steps`` and ``input_states``."""
        output = self.model(tokens[None], input_states=states[None], num_steps=recurrences, use_cache=False)
        logits: Tensor = output.logits[0]
        return logits

    def layer_parameters(self) -> float:
        """Of a core layer, with its share of the adapter that injects the embedding."""
        parts = self._model.transformer
        return (count_parameters(parts.core_block) + count_parameters(parts.adapter)) / self.core_layers
