"""A causal LM of transformers seen as embed → layers → final norm → head, whose top layers can run again.

Nothing of a model family is written out here: the model runs its own forward over all rows of a pass, and
hooks on its layers choose which of them take part: rows that are recursed join at the layer where their
span begins. The head is the model's own forward with its decoder bypassed, so soft-capping and logit
scaling stay the model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lm_eval_eglr.decoding.precision import at_least_fp32
from lm_eval_eglr.decoding.row_cache import RowCache

SUPPORTED_LAYER_TYPES = {"full_attention", "sliding_attention", "chunked_attention"}


class UnsupportedModelError(ValueError):
    """The model cannot be decoded by this engine; the message says why."""


class Joining(Protocol):
    """The items of a pass: its last rows, which join it at an upper layer."""

    @property
    def spans(self) -> Sequence[int]:
        """Layers that are applied to each item, deepest first."""

    def inputs(self) -> Tensor:
        """What each item's first layer is applied to, ``[items, dim]``."""

    def outputs(self, applied: Tensor) -> Tensor:
        """The final state of each item from its last layer's output, both ``[items, dim]``."""


class LayerStack:
    """The adapter; see the module's docstring.

    Attributes:
        model: The causal LM.
        depth: Number N of decoder layers.
        hidden: Residual stream after the last layer in the last pass, x_N, ``[rows, 1, dim]``.
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
        self._inputs: list[Tensor] = [torch.empty(0)] * self.depth
        self.hidden: Tensor = torch.empty(0)
        self._pass: _Pass | None = None

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
        """Records what single queries give each layer and x_N, and lets items join, during the block."""

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
            self._inputs = [torch.empty(0)] * self.depth
            self.hidden = torch.empty(0)

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
        self._pass = running = _Pass(cache, tokens.shape, joining, self.depth)
        bypassed = 0 if running.plain else self.depth - running.spans[0]
        try:
            with self._bypass(bypassed):
                output = self.decoder(
                    input_ids=tokens.to(self.device),
                    position_ids=positions.to(self.device),
                    past_key_values=cache,
                    use_cache=True,
                )
        finally:
            self._pass = None
        normed: Tensor = output[0]
        return normed

    def layer_input(self, span: int) -> Tensor:
        """x_{N-span} of the last pass, ``[rows, 1, dim]``; x_N for span 0."""
        return self._inputs[self.depth - span] if span else self.hidden

    def _enter_layer(self, number: int, running: _Pass, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Records a layer's input and, in a pass with items, lets those whose span begins here join."""
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        if running.recorded:
            self._inputs[number] = hidden
        if not running.spans or number < running.first:
            return None
        if number == running.first:
            hidden = hidden[: running.plain]  # the embedding was given all rows
        joined = running.joined(self.depth - number)
        if joined > len(hidden):
            here = running.inputs[len(hidden) - running.plain : joined - running.plain, None]
            hidden = torch.cat([hidden, here.to(hidden.device)])
        running.cache.limit_items(joined)
        named = {
            name: running.take(value, joined) for name, value in kwargs.items() if name != "hidden_states"
        }
        if args:
            return (hidden, *running.take(args[1:], joined)), named
        return (), {"hidden_states": hidden, **named}

    def _enter_norm(self, running: _Pass, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Records x_N; that of items is what the update rule makes of it."""
        name = "" if args else next(iter(kwargs))
        hidden: Tensor = args[0] if args else kwargs[name]
        if running.recorded:
            self.hidden = hidden
        if running.joining is None:
            return None
        applied = running.joining.outputs(hidden[running.plain :, 0])
        hidden = torch.cat([hidden[: running.plain], applied[:, None]])
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


class _Pass:
    """Which rows of the running pass take part in which layers."""

    def __init__(self, cache: RowCache, shape: Sequence[int], joining: Joining | None, depth: int) -> None:
        self.cache = cache
        self.joining = joining
        self.spans = list(joining.spans) if joining is not None else []
        self.rows, queries = shape
        self.recorded = queries == 1  # a prefill's activations are large, and nothing of it is recursed
        self.plain = self.rows - len(self.spans)
        self.inputs = joining.inputs() if joining is not None else torch.empty(0)
        # The first layer that runs: where there are no others, that of the deepest item.
        self.first = 0 if self.plain or not self.spans else depth - self.spans[0]
        self._taken: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def joined(self, height: int) -> int:
        """Rows that take part in the layer with ``height - 1`` others above it."""
        return self.plain + sum(span >= height for span in self.spans)

    def take(self, value: Any, count: int) -> Any:
        """What a layer is called with, for the first ``count`` rows; each tensor is taken once."""
        if isinstance(value, Tensor):
            if count == self.rows or value.dim() == 0 or value.shape[0] != self.rows:
                return value
            key = (id(value), count)
            if key not in self._taken:
                # The value is kept beside what was taken: its id must not be given away meanwhile.
                self._taken[key] = (value, value[:count])
            return self._taken[key][1]
        if isinstance(value, (tuple, list)):
            return type(value)(self.take(item, count) for item in value)
        if isinstance(value, dict):
            return {name: self.take(item, count) for name, item in value.items()}
        return value


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
