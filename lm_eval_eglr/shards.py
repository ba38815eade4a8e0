"""Tensor parallelism: what the processes that hold one model together must agree on.

Each holds a share of every layer's heads, and the model's own hooks join what they compute. All run the same
passes over the same rows. Rounding may still differ between them, and so may what is free of their memory:
whatever decides how decoding goes on is what the first process says, or what suits them all.
"""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor
from transformers import PreTrainedModel


class Shards:
    """The processes that hold one model together; only one where the model is not distributed.

    Attributes:
        size: Their number.
    """

    def __init__(self, group: torch.distributed.ProcessGroup | None = None) -> None:
        """Makes that of ``group``; ``None`` for a model that this process holds alone."""
        self._group = group
        self.size = 1 if group is None else torch.distributed.get_world_size(group)

    @classmethod
    def of(cls, model: PreTrainedModel) -> Shards:
        """The processes that ``model`` was loaded on by transformers' ``tp_plan``."""
        mesh = getattr(model, "_device_mesh", None)
        if mesh is None or (getattr(model, "tp_size", None) or 1) == 1:
            return cls()
        named = "tp" in (mesh.mesh_dim_names or ())  # with others, or it is the only dimension
        return cls(mesh.get_group("tp") if named else mesh.get_group())

    def agree(self, values: Tensor) -> Tensor:
        """Makes ``values`` those of the first process, on all of them; in place."""
        if self._group is not None:
            torch.distributed.broadcast(values, group=self._group, group_src=0)
        return values

    def smallest(self, value: int, device: torch.device) -> int:
        """The smallest of the processes' values."""
        if self._group is None:
            return value
        found = torch.tensor([value], device=device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MIN, group=self._group)
        return int(found)


def whole_model(model: PreTrainedModel) -> PreTrainedModel:
    """The model with the shapes of all its weights, which a process has a share of; on no device."""
    if Shards.of(model).size == 1:
        return model
    with torch.device("meta"):
        return type(model)(model.config)
