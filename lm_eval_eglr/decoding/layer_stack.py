"""A causal LM of transformers seen as embed → layers → final norm → head, whose top layers can run again.

Nothing of a model family is written out here: the model runs its own forward over all rows of a pass, and
hooks on its layers choose which of them take part: rows that are recursed join at the layer where their
span begins. The head is the model's own forward with its decoder bypassed, so soft-capping and logit
scaling stay the model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lm_eval_eglr.decoding.passes import Joining, Pass, Residuals, VaryingPass
from lm_eval_eglr.decoding.precision import at_least_fp32
from lm_eval_eglr.decoding.row_cache import RowCache

SUPPORTED_LAYER_TYPES = {"full_attention", "sliding_attention", "chunked_attention"}


class UnsupportedModelError(ValueError):
    """The model cannot be decoded by this engine; the message says why."""


class LayerStack:
    """The adapter; see the module's docstring.

    Attributes:
        model: The causal LM.
        depth: Number N of decoder layers.
        residuals: The residual stream of the last pass of single queries.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Finds the parts of ``model``.

        Raises:
            UnsupportedModelError: If it is no decoder-only model of attention layers, or its parts
                cannot be told apart.
        """
        refuse_unsupported(model)
        self.model = model
        self.decoder: PreTrainedModel = model.get_decoder()
        self.layers = _decoder_layers(self.decoder, model)
        self.depth = len(self.layers)
        self.norm, self._output_class = self._find_norm()
        self.residuals = Residuals(self.depth)
        self._pass: Pass | None = None

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, where token ids go."""
        embeddings = self.model.get_input_embeddings()
        device = next(embeddings.parameters()).device
        if device.type != "meta":
            return device
        # Offloaded: accelerate brings the weights to where the module runs, and knows where that is.
        return torch.device(embeddings._hf_hook.execution_device)  # type: ignore[arg-type, union-attr]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records the residual stream of single queries, and lets items join, during the block."""

        def layer_hook(number: int) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                return None if self._pass is None else self._enter_layer(number, self._pass, args, kwargs)

            return hook

        def norm_hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return None if self._pass is None else self._enter_norm(self._pass, args, kwargs)

        handles = [
            layer.register_forward_pre_hook(layer_hook(number), with_kwargs=True)
            for number, layer in enumerate(self.layers)
        ]
        handles.append(self.norm.register_forward_pre_hook(norm_hook, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.residuals = Residuals(self.depth)

    def forward(
        self, tokens: Tensor, positions: Tensor, cache: RowCache, joining: Joining | None = None
    ) -> Tensor:
        """Runs a pass: some rows through all layers, the last ones through their top layers only.

        Args:
            tokens: Token ids, ``[rows, queries]``; an item's is the one at its position, ``[rows, 1]`` then.
            positions: Their positions, ``[rows, queries]``.
            cache: Told beforehand which rows take part.
            joining: The items, which are the last rows. A pass of items alone skips the layers below.

        Returns:
            Normed residual stream, ``[rows, queries, dim]``.
        """
        return self.run(VaryingPass(cache, tokens.shape, joining, self.depth), tokens, positions, cache)

    def run(self, running: Pass, tokens: Tensor, positions: Tensor, cache: RowCache) -> Tensor:
        """Runs a pass; arguments and result as of :meth:`forward`."""
        self._pass = running
        try:
            with self._bypass(running.bypassed):
                output = self.decoder(
                    input_ids=tokens.to(self.device),
                    position_ids=positions.to(self.device),
                    past_key_values=cache,
                    use_cache=True,
                )
        finally:
            self._pass = None
        if running.residuals is not None:
            self.residuals = running.residuals
        normed: Tensor = output[0]
        return normed

    def _enter_layer(self, number: int, running: Pass, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        others = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        entered = running.enter_layer(number, hidden, (args[1:], others))
        if entered is None:
            return None
        hidden, (rest, named) = entered
        if args:
            return (hidden, *rest), named
        return (), {"hidden_states": hidden, **named}

    def _enter_norm(self, running: Pass, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = "" if args else next(iter(kwargs))
        hidden = running.enter_norm(args[0] if args else kwargs[name])
        return ((hidden, *args[1:]), kwargs) if args else (args, {name: hidden})

    @contextmanager
    def _bypass(self, count: int) -> Iterator[None]:
        """Lets the first ``count`` layers hand on what they are given."""
        below = self.layers[:count]
        before = [layer.__dict__.get("forward") for layer in below]
        for layer in below:
            layer.forward = self._hand_on
        try:
            yield
        finally:
            for layer, forward in zip(below, before, strict=True):
                if forward is None:
                    del layer.__dict__["forward"]
                else:
                    layer.forward = forward

    def _hand_on(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (hidden_states,) if self._layers_return_tuples else hidden_states

    def unembed(self, normed: Tensor) -> Tensor:
        """The model's head on normed streams, in fp32 at least: ``[items, dim]`` to ``[items, vocab]``."""
        output = self._output_class(last_hidden_state=normed[:, None])
        had_forward = "forward" in self.decoder.__dict__
        before = self.decoder.__dict__.get("forward")
        self.decoder.forward = lambda *args, **kwargs: output
        try:
            logits: Tensor = self.model(input_ids=None, use_cache=False).logits
        finally:
            if had_forward:
                self.decoder.forward = before  # type: ignore[assignment]
            else:
                del self.decoder.__dict__["forward"]
        return at_least_fp32(logits[:, 0])

    def _find_norm(self) -> tuple[nn.Module, type]:
        """Finds the module between the last layer and the decoder's output by running one token."""
        seen: list[tuple[nn.Module, Any, Any]] = []

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            seen.append((module, args[0] if args else None, output))

        last = self.layers[-1]
        others = [m for m in self.decoder.children() if m is not last and not isinstance(m, nn.ModuleList)]
        handles = [m.register_forward_hook(hook, with_kwargs=True) for m in (*others, last)]
        try:
            token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
            with torch.no_grad():
                output = self.decoder(input_ids=token, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        place = [module for module, _, _ in seen].index(last)
        self._layers_return_tuples = isinstance(seen[place][2], tuple)
        after = seen[place + 1 :]
        if len(after) != 1 or not torch.equal(after[0][2], output[0]):
            names = ", ".join(type(module).__name__ for module, _, _ in after) or "nothing"
            raise UnsupportedModelError(
                f"{type(self.model).__name__}: expected one final norm after the last layer, found {names}"
            )
        return after[0][0], type(output)

    def layer_parameters(self) -> float:
        """Mean number of parameters of a layer that work on a token; of a mixture, the routed share."""
        config = self.model.config.get_text_config()
        experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
        share = config.num_experts_per_tok / experts if experts else 1.0
        total = 0.0
        for name, parameter in self.layers.named_parameters():
            total += parameter.numel() * (share if ".experts." in name else 1.0)
        return total / self.depth

    def head_parameters(self) -> int:
        """Number of parameters of the unembedding."""
        count: int = self.model.get_output_embeddings().weight.numel()
        return count


def refuse_unsupported(model: PreTrainedModel) -> None:
    """Raises :class:`UnsupportedModelError` for architectures without a stack of attention layers."""
    name = type(model).__name__
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(f"{name} is an encoder-decoder model; expected a decoder-only causal LM")
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ()) - SUPPORTED_LAYER_TYPES
    if kinds:
        raise UnsupportedModelError(
            f"{name} has layers of type {', '.join(sorted(kinds))}; "
            f"expected {', '.join(sorted(SUPPORTED_LAYER_TYPES))} only"
        )


def _decoder_layers(decoder: nn.Module, model: PreTrainedModel) -> nn.ModuleList:
    depth = model.config.get_text_config().num_hidden_layers
    stacks = [m for m in decoder.children() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(stacks) != 1:
        raise UnsupportedModelError(
            f"{type(model).__name__}: expected one list of {depth} decoder layers, found {len(stacks)}"
        )
    return stacks[0]
