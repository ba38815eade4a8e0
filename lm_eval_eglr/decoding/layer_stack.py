"""A causal LM of transformers seen as embed → layers → final norm → head, whose top layers can run again.

Nothing of a model family is written out here: the model runs its own forward, what its top layers were
called with is recorded, and a layer is run again with those arguments indexed by row. The head is the
model's own forward with its decoder bypassed, so soft-capping and logit scaling stay the model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

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
        hidden: Residual stream after the last layer in the last pass, x_N, ``[rows, queries, dim]``.
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
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]] | None] = [None] * self.depth
        self.hidden: Tensor = torch.empty(0)
        self._in_plain_pass = False
        self._taken: dict[tuple[int, int], Any] = {}

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
        """Records each layer's arguments and x_N during the block."""

        def layer_hook(number: int) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                if self._in_plain_pass:
                    self._calls[number] = (args, kwargs)

            return hook

        def norm_hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._in_plain_pass:
                self.hidden = args[0] if args else next(iter(kwargs.values()))

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
            self._calls = [None] * self.depth
            self._taken = {}

    def forward(self, tokens: Tensor, positions: Tensor, cache: RowCache) -> Tensor:
        """Runs the plain pass.

        Args:
            tokens: Token ids, ``[rows, queries]``.
            positions: Their positions, ``[rows, queries]``.
            cache: Told beforehand which rows take part.

        Returns:
            Normed residual stream, ``[rows, queries, dim]``.
        """
        self._in_plain_pass = True
        try:
            output = self.decoder(
                input_ids=tokens.to(self.device),
                position_ids=positions.to(self.device),
                past_key_values=cache,
                use_cache=True,
            )
        finally:
            self._in_plain_pass = False
        normed: Tensor = output[0]
        return normed

    def layer_input(self, span: int) -> Tensor:
        """x_{N-span} of the last pass, ``[rows, queries, dim]``; x_N for span 0."""
        if span == 0:
            return self.hidden
        call = self._calls[self.depth - span]
        assert call is not None
        args, kwargs = call
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        return hidden

    def apply_top(self, inputs: Tensor, spans: Sequence[int], rows: Tensor, cache: RowCache) -> Tensor:
        """Applies the top ``spans[i]`` layers to item i, as one staircase.

        Args:
            inputs: z, ``[items, dim]``.
            spans: Layers to apply per item, deepest first.
            rows: Row of the recorded pass that each item continues, ``[items]``.
            cache: Told beforehand (``begin_items``) where the items read.

        Returns:
            f_N ∘ ... ∘ f_{N-L+1} (z) per item, ``[items, dim]``.
        """
        hidden = inputs[:0, None]
        for number in range(self.depth - spans[0], self.depth):
            joined = sum(span >= self.depth - number for span in spans)
            if joined > len(hidden):
                hidden = torch.cat([hidden, inputs[len(hidden) : joined, None].to(hidden.device)])
                cache.limit_items(joined)
            call = self._calls[number]
            assert call is not None
            args, kwargs = self._take(call, rows, joined)
            if args:
                args = (hidden, *args[1:])
            else:
                kwargs["hidden_states"] = hidden
            output = self.layers[number](*args, **kwargs)
            hidden = output[0] if isinstance(output, tuple) else output
        return hidden[:, 0]

    def _take(self, call: tuple[tuple[Any, ...], dict[str, Any]], rows: Tensor, count: int) -> Any:
        """A recorded call's arguments for the first ``count`` of ``rows``; each tensor is taken once."""
        total = len(self.hidden)

        def take(value: Any) -> Any:
            if isinstance(value, Tensor):
                if value.dim() == 0 or value.shape[0] != total:
                    return value
                key = (id(value), count)
                if key not in self._taken:
                    # The value is kept beside what was taken: its id must not be given away meanwhile.
                    self._taken[key] = (value, value.index_select(0, rows[:count].to(value.device)))
                return self._taken[key][1]
            if isinstance(value, (tuple, list)):
                return type(value)(take(item) for item in value)
            if isinstance(value, dict):
                return {name: take(item) for name, item in value.items()}
            return value

        args, kwargs = call
        # The hidden state, the first argument or this keyword, is replaced by the caller.
        named = {name: value if name == "hidden_states" else take(value) for name, value in kwargs.items()}
        return args[:1] + take(args[1:]), named

    def begin_rows(self) -> None:
        """Forgets taken arguments: the items of the next recursion are others."""
        self._taken = {}

    def logits(self, hidden: Tensor) -> Tensor:
        """head(norm(h)) in fp32 at least: ``[items, dim]`` to ``[items, vocab]``."""
        return self.unembed(self.norm(hidden[:, None])[:, 0])

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
        after = seen[[module for module, _, _ in seen].index(last) + 1 :]
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
