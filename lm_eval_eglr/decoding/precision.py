"""The precision of everything that is not a layer: scores, distributions, norms of the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_fp32(values: Tensor) -> Tensor:
    """Returns half-precision values in fp32, and all others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
