"""Other code for a model's modules while it decodes: packed linear layers, and compiled decoder layers.

Linear layers on a CPU, for the few rows of a decode step: x Wᵀ is then bound by reading W, and torch's matrix
products bring W into the order of their kernels at every call. oneDNN, which torch brings along, can keep W
in that order: it is packed once per run, as torch's own compiler does where it freezes weights. The values
are the same up to rounding; for the times see benchmarks/linear.py. The rest is left to torch: small weights,
for which its call costs less, other types than float32, subclasses of a linear layer, and models whose copy
would take too much of the free memory.

Decoder layers, by torch.compile: what lies between their matrix products (norms, rotations, activations,
masks, the store of keys and values) becomes a few kernels instead of dozens. All layers of a model share what
is compiled; its shapes are symbols, so that rows and columns may change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from lm_eval_eglr.decoding.model.attention import LayerCache

SMALLEST = 1 << 18  # weights of a layer that is packed; below, what a call costs outweighs what is saved
MEMORY_SHARE = 0.25  # of the free memory, that packed weights may take; the cache is sized to what is left


class CpuLinear:
    """Switches a model's plain linear layers on a CPU to packed weights, for a block at a time.

    Weights are packed when the first block begins and kept for the next ones: one instance serves one run,
    during which they must not change.
    """

    def __init__(self, model: nn.Module, without: Sequence[nn.Module] = ()) -> None:
        """Finds the layers, but for those in ``without``: packed weights cannot be traced by a compiler."""
        left_out = {id(module) for each in without for module in each.modules()}
        self._layers = [
            module
            for module in model.modules()
            if id(module) not in left_out
            # Neither subclasses (adapters, quantised weights) nor layers that somebody else has wrapped.
            and type(module) is nn.Linear
            and "forward" not in module.__dict__
            and _is_packable(module.weight)
        ]
        self._packed: list[partial[Tensor]] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Switches for the block, then back."""
        if self._packed is None:
            size = sum(layer.weight.nbytes for layer in self._layers)
            fits = size <= MEMORY_SHARE * psutil.virtual_memory().available
            self._packed = [packed_linear(layer.weight, layer.bias) for layer in self._layers if fits]
        try:
            for layer, packed in zip(self._layers, self._packed, strict=False):  # none, if they do not fit
                layer.forward = packed  # type: ignore[method-assign]
            yield
        finally:
            for layer in self._layers:
                layer.__dict__.pop("forward", None)


def packed_linear(weight: Tensor, bias: Tensor | None = None) -> partial[Tensor]:
    """The function x ↦ x Wᵀ + b on a packed copy of W, ``[..., in]`` to ``[..., out]``."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    return partial(_apply, packed, None if bias is None else bias.detach())


def _apply(packed: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return out


def _is_packable(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.numel() >= SMALLEST
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


Backend = Callable[..., Any]
"""What makes code of a traced graph, as torch.compile's ``backend``."""
VARIANTS = 64  # of one model's layers that may be compiled: kinds of layers times kinds of passes, and some


class CannotCompile(RuntimeError):
    """The layers cannot be traced or compiled; the message says why, in one line."""


class Entered:
    """The compiled layer that runs.

    Attributes:
        layer: What it sees of its pass; ``None`` where none runs.
    """

    layer: LayerCache | None = None


class CompiledLayers:
    """Runs decoder layers by code that is compiled when it is first needed, once for all layers.

    The layers' ``forward`` is compiled, not the modules, so that hooks on them stay outside. A layer gets its
    part of the pass as its cache, see :class:`~lm_eval_eglr.decoding.model.attention.LayerCache`.
    """

    def __init__(self, entered: Entered, backend: Backend | None = None) -> None:
        """Compiles nothing yet.

        Args:
            entered: Where the attention finds what the layer sees that runs.
            backend: Instead of torch's own compiler.
        """
        self._entered = entered
        # torch keeps what it compiles beside the code object, and compiles only so many variants of one.
        own = FunctionType(_run_layer.__code__.replace(), _run_layer.__globals__, _run_layer.__name__)
        self._compiled = torch.compile(own, fullgraph=True, dynamic=True, backend=backend or "inductor")

    def forward(self, layer: nn.Module, seen: Callable[[], LayerCache], cache: object) -> Callable[..., Any]:
        """What a layer's ``forward`` is for a pass.

        Args:
            layer: The layer.
            seen: Says what it sees of the pass, once it is entered.
            cache: The argument by which the model knows the pass, which the layer gets that instead of.
        """

        def run(*args: Any, **kwargs: Any) -> Any:
            self._entered.layer = here = seen()
            try:
                return self._compiled(
                    layer,
                    *(here if each is cache else each for each in args),
                    **{name: here if each is cache else each for name, each in kwargs.items()},
                )
            finally:
                self._entered.layer = None

        return run

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Layers may be compiled during the block.

        Raises:
            CannotCompile: If they cannot be.
        """
        import torch._dynamo.config as tracing
        import torch._dynamo.exc as failures
        import torch.fx.experimental._config as shapes

        # Renamed in torch 2.7.
        limit = "recompile_limit" if hasattr(tracing, "recompile_limit") else "cache_size_limit"
        with ExitStack() as settings:
            settings.enter_context(tracing.patch({limit: VARIANTS}))
            # Two sizes that happen to be equal are not one symbol: they will differ in another pass.
            settings.enter_context(shapes.patch(use_duck_shape=False))  # type: ignore[attr-defined]
            try:
                yield
            except (failures.TorchDynamoException, failures.FailOnRecompileLimitHit) as error:
                raise CannotCompile(" ".join(str(error).split())[:200]) from error


def _run_layer(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return type(layer).forward(layer, *args, **kwargs)
