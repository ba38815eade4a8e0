"""Decoder layers by torch.compile.

What lies between their matrix products (norms, rotations, activations, masks, the store of keys and values)
becomes a few kernels instead of dozens. All layers of a model share what is compiled; its shapes are symbols,
so that rows and columns may change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import nn

from lm_eval_eglr.decoding.model.attention import LayerCache

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
