"""A causal LM of transformers seen as embed → layers → final norm → head, whose top layers can run again.

Nothing of a model family is written out here: the model runs its own forward over all rows of a pass, and
hooks on its layers choose which of them take part: rows that are recursed join at the layer where their
span begins. The head is the model's own forward with its decoder bypassed, so soft-capping and logit
scaling stay the model's.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.utils import ModelOutput

from lm_eval_eglr.decoding.model.attention import row_mask
from lm_eval_eglr.decoding.model.compiled_layers import Backend, CannotCompile, CompiledLayers, Entered
from lm_eval_eglr.decoding.model.kv_cache import cache_argument, rows_that_fit
from lm_eval_eglr.decoding.model.passes import Pass, PassOutput
from lm_eval_eglr.decoding.numerics import at_least_fp32, on_device
from lm_eval_eglr.shards import Shards, whole_model

SUPPORTED_LAYER_TYPES = {"full_attention", "sliding_attention", "chunked_attention"}


class UnsupportedModelError(ValueError):
    """The model cannot be decoded by this engine; the message says why."""


class LayerStack:
    """The adapter; see the module's docstring.

    Attributes:
        model: The causal LM.
        depth: Number N of decoder layers.
        base_layers: Those that every token runs through: all.
        shards: The processes that hold the model together.
        bytes_per_token: Keys and values of one position in all layers, bytes by device, as the layers make
            them; known once the self-check has run them. The configuration does not tell: a process may hold
            a share of the heads.
        compiled: What runs the layers in passes of single queries; ``None`` where they run as they are.
    """

    _names = (f"eglr_rows_{number}" for number in itertools.count())

    def __init__(self, model: PreTrainedModel, compile_layers: bool | Backend = False) -> None:
        """Finds the parts of ``model``.

        Args:
            model: The model.
            compile_layers: Whether its layers run compiled, or a backend of torch.compile that does it.

        Raises:
            UnsupportedModelError: If it is no decoder-only model of attention layers, or its parts
                cannot be told apart.
        """
        refuse_unsupported(model)
        self.model = model
        self.decoder: PreTrainedModel = model.get_decoder()
        self.layers = _decoder_layers(self.decoder, model)
        self._cache_argument = cache_argument(self.decoder)
        self.depth = self.base_layers = len(self.layers)
        self.shards = Shards.of(model)
        self._whole = whole_model(model)
        self.bytes_per_token: dict[torch.device, int] = {}
        self._device: torch.device | None = None
        self.norm, self._decoded = self._find_norm()
        self._entered = Entered()
        self.compiled: CompiledLayers | None = None
        if compile_layers:
            self._refuse_to_compile()
            backend = None if compile_layers is True else compile_layers
            self.compiled = CompiledLayers(self._entered, backend)
        self._pass: Pass | None = None
        self._attention = self._register_attention()
        configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
        self._configs = list(configs.values())

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, where token ids go."""
        return self._device or self._find_device()

    def _find_device(self) -> torch.device:
        embeddings = self.model.get_input_embeddings()
        device = next(embeddings.parameters()).device
        if device.type != "meta":
            return device
        # Offloaded: accelerate brings the weights to where the module runs, and knows where that is.
        return torch.device(embeddings._hf_hook.execution_device)  # type: ignore[arg-type, union-attr]

    @property
    def compiled_layers(self) -> Sequence[nn.Module]:
        """Layers that run compiled, at least in some passes."""
        return () if self.compiled is None else list(self.layers)

    def _register_attention(self) -> str:
        """Registers attention and masks that ask the pass which this stack runs; returns their name.

        Each stack has a name of its own, so that a model knows whose pass it is in.
        """
        name, this, entered = next(self._names), weakref.ref(self), self._entered

        def attention(
            module: nn.Module,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attention_mask: Tensor,
            scaling: float | None = None,
            softcap: float | None = None,
            s_aux: Tensor | None = None,
            **_: Any,
        ) -> tuple[Tensor, None]:
            options = {"scaling": scaling, "softcap": softcap, "sinks": s_aux}
            if entered.layer is not None:
                return entered.layer.attend(query, key, value, attention_mask, **options), None
            stack = this()
            assert stack is not None
            assert stack._pass is not None
            number: int = module.layer_idx  # type: ignore[assignment]
            out = stack._pass.attend(number, query, key, value, attention_mask, **options)
            return out, None

        AttentionInterface.register(name, attention)
        AttentionMaskInterface.register(name, row_mask)
        return name

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Lets passes run during the block; afterwards the model is as it was.

        The model is switched to evaluation, its attention to ours, and its layers get the hooks by which
        rows join a pass.
        """

        def layer_hook(number: int) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                return None if self._pass is None else self._enter_layer(number, self._pass, args, kwargs)

            return hook

        def norm_hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return None if self._pass is None else self._enter_norm(self._pass, args, kwargs)

        attentions = [config._attn_implementation for config in self._configs]
        handles = [
            layer.register_forward_pre_hook(layer_hook(number), with_kwargs=True)
            for number, layer in enumerate(self.layers)
        ]
        handles.append(self.norm.register_forward_pre_hook(norm_hook, with_kwargs=True))
        self._device = self._find_device()  # which takes a while, and is asked for in every step
        try:
            for config in self._configs:
                config._attn_implementation = self._attention
            with self.evaluating():
                yield
        finally:
            self._device = None
            for handle in handles:
                handle.remove()
            for config, name in zip(self._configs, attentions, strict=True):
                config._attn_implementation = name

    def evaluating(self) -> AbstractContextManager[None]:
        """Switches the model to evaluation for a block, and what was in training back."""
        return evaluating(self.model)

    def forward(self, running: Pass, tokens: Tensor, positions: Tensor) -> Tensor:
        """Runs a pass: some rows through all layers, the last ones perhaps through their top layers only.

        Args:
            running: Which rows take part in what.
            tokens: Token ids, ``[rows, queries]``; a recursion's is the one at its position.
            positions: Their positions, ``[rows, queries]``.

        Returns:
            Normed residual stream, ``[rows, queries, dim]``.
        """
        self._pass = running
        running.offsets = on_device(running.offsets, self.device)  # whoever asks would wait for them
        try:
            as_they_are = self.compiled is None and not running.bypassed
            with nullcontext() if as_they_are else self._forwards(running):
                output = self.decoder(
                    input_ids=on_device(tokens, self.device),
                    position_ids=on_device(positions, self.device),
                    use_cache=True,
                    **{self._cache_argument: running},
                )
        finally:
            self._pass = None
        normed: Tensor = output[0]
        return normed

    def run(self, running: Pass, tokens: Tensor, positions: Tensor) -> PassOutput:
        """Runs a pass of single queries up to its distributions.

        Args:
            running: Which rows take part in what.
            tokens: Token ids, ``[rows + recursions]``.
            positions: Their positions, ``[rows + recursions]``.
        """
        normed = self.forward(running, tokens[:, None], positions[:, None])
        logprobs = self.unembed(normed[:, 0]).log_softmax(-1)
        return PassOutput(logprobs, running.states, running.residuals)

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
    def _forwards(self, running: Pass) -> Iterator[None]:
        """Lets layers that the pass leaves out hand on what they are given, and the others run compiled."""
        forwards: list[Callable[..., Any]] = [self._identity_layer] * running.bypassed
        compiling: AbstractContextManager[None] = nullcontext()
        if self.compiled is not None and running.compilable:
            compiling = self.compiled.compiling()
            for number in range(running.bypassed, self.depth):
                seen = partial(running.layer, number)
                forwards.append(self.compiled.forward(self.layers[number], seen, running))
        layers = self.layers[: len(forwards)]
        before = [layer.__dict__.get("forward") for layer in layers]
        for layer, forward in zip(layers, forwards, strict=True):
            layer.forward = forward
        try:
            with compiling:
                yield
        except CannotCompile as error:
            raise self._cannot_compile(str(error)) from error
        finally:
            for layer, own in zip(layers, before, strict=True):
                if own is None:
                    del layer.__dict__["forward"]
                else:
                    layer.forward = own

    def _refuse_to_compile(self) -> None:
        if self.shards.size > 1:
            raise self._cannot_compile("several processes hold them together")
        if any("forward" in layer.__dict__ for layer in self.layers):
            raise self._cannot_compile("something has replaced their forward, as offloading does")

    def _cannot_compile(self, reason: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"compile_layers=True: the layers of {type(self.model).__name__} cannot be compiled ({reason}); "
            "leave it out"
        )

    def _identity_layer(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (hidden_states,) if self._layers_return_tuples else hidden_states

    def unembed(self, normed: Tensor) -> Tensor:
        """The model's head on normed streams, in fp32 at least: ``[items, dim]`` to ``[items, vocab]``."""
        output = self._decoded
        output["last_hidden_state"] = normed[:, None]
        had_forward = "forward" in self.decoder.__dict__
        before = self.decoder.__dict__.get("forward")
        # Past the module's own way of setting attributes, which looks for parameters among them.
        self.decoder.__dict__["forward"] = lambda *args, **kwargs: output
        try:
            logits: Tensor = self.model(input_ids=None, use_cache=False).logits
        finally:
            if had_forward:
                self.decoder.__dict__["forward"] = before
            else:
                del self.decoder.__dict__["forward"]
            output["last_hidden_state"] = None
        return at_least_fp32(logits[:, 0])

    def _find_norm(self) -> tuple[nn.Module, ModelOutput]:
        """Finds the module between the last layer and the decoder's output by running one token.

        Returns:
            The module, and an output of the decoder to be filled in: to make one takes as long as the head.
        """
        seen: list[tuple[nn.Module, Any, Any]] = []

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            seen.append((module, args[0] if args else None, output))

        last = self.layers[-1]
        others = [m for m in self.decoder.children() if m is not last and not isinstance(m, nn.ModuleList)]
        handles = [m.register_forward_hook(hook, with_kwargs=True) for m in (*others, last)]
        try:
            token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
            with torch.no_grad(), self.evaluating():
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
        return after[0][0], type(output)(last_hidden_state=output[0])

    def rows_that_fit(self, length: int, deepest: int = 0) -> int:
        """Rows of ``length`` positions that fit into the memory of all devices and processes, 1 to 256.

        Spans store no keys of their own, so that the deepest one does not matter.
        """
        vocabulary = self.model.config.get_text_config().vocab_size
        return self.shards.smallest(rows_that_fit(self.bytes_per_token, length, vocabulary), self.device)

    def layer_parameters(self) -> float:
        """Mean number of parameters of a layer that work on a token; of a mixture, the routed share."""
        config = self.model.config.get_text_config()
        experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
        share = config.num_experts_per_tok / experts if experts else 1.0
        total = 0.0
        layers = _decoder_layers(self._whole.get_decoder(), self._whole)
        for name, parameter in layers.named_parameters():
            total += parameter.numel() * (share if ".experts." in name else 1.0)
        return total / self.depth

    def head_parameters(self) -> int:
        """Number of parameters of the unembedding."""
        count: int = self._whole.get_output_embeddings().weight.numel()
        return count


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switches a model to evaluation for the block, and what was in training back."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


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
