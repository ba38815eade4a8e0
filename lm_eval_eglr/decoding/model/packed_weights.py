"""Packed linear layers on a CPU, for the few rows of a decode step.

x Wᵀ is then bound by reading W, and torch's matrix products bring W into the order of their kernels at every
call. oneDNN, which torch brings along, can keep W in that order: it is packed once per run, as torch's own
compiler does where it freezes weights. The values are the same up to rounding; for the times see
benchmarks/linear.py. The rest is left to torch: small weights, for which its call costs less, other types
than float32, subclasses of a linear layer, and models whose copy would take too much of the free memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import psutil
import torch
from torch import Tensor, nn

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
