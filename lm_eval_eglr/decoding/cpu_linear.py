"""Linear layers on a CPU for the few rows of a decode step.

x Wᵀ with few rows is bound by how often the library walks through W. Computed as (W xᵀ)ᵀ, the weights are
the left factor, which is read in place, and only the small xᵀ is packed. Its kernels work on eight columns at
a time and are slow on what is left over, so that 47 rows take longer than 48: rows are padded to eights. The
values are the same up to rounding; for the times see benchmarks/linear.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEWEST_ROWS = 2  # a single row is a matrix-vector product either way
MOST_ROWS = 256  # beyond, both ways cost the same
MANY_FEATURES = 8192  # from here on, as in an unembedding, the output does not stay in the cache
WIDTH = 8  # columns of xᵀ that a kernel works on at a time
CHUNK = 1024  # so its products are put in order by so many features at a time
DTYPES = (torch.float32, torch.float64)


def few_row_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, ``[..., in]`` to ``[..., out]``; as ``torch.nn.functional.linear``."""
    rows = x.reshape(-1, x.shape[-1])
    count = len(rows)
    if not FEWEST_ROWS <= count <= MOST_ROWS:
        return F.linear(x, weight, bias)
    if count > WIDTH // 2 and count % WIDTH:
        rows = F.pad(rows, (0, 0, 0, -count % WIDTH))
    if len(weight) < MANY_FEATURES:
        out = (weight @ rows.t())[:, :count].t().contiguous()
    else:
        out = rows.new_empty(count, len(weight))
        for part, chunk in zip(out.split(CHUNK, dim=1), weight.split(CHUNK), strict=True):
            part.copy_((chunk @ rows.t())[:, :count].t())
    if bias is not None:
        out += bias
    return out.view(*x.shape[:-1], len(weight))


class CpuLinear:
    """Switches a model's plain linear layers on a CPU to :func:`few_row_linear` for a block."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = [
            module
            for module in model.modules()
            # Neither subclasses (adapters, quantised weights) nor layers that somebody else has wrapped.
            if type(module) is nn.Linear and "forward" not in module.__dict__ and _is_served(module.weight)
        ]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Switches for the block, then back."""
        for layer in self._layers:
            layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in self._layers:
                layer.__dict__.pop("forward", None)


def _is_served(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype in DTYPES and weight.is_contiguous()


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    # Read from the layer at each call: its weights may be replaced while it is switched.
    return few_row_linear(x, layer.weight, layer.bias)
