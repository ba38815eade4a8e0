"""How many rows fit into the memory that is free, and what to do when they did not."""

from __future__ import annotations

import gc

import psutil
import torch
from transformers import PreTrainedModel

MOST_ROWS = 256  # beyond it throughput hardly grows and a step's logits do
FREE_SHARE = 0.6  # what is left is for activations and for everyone else


def bytes_per_token(model: PreTrainedModel) -> int:
    """Keys and values of one position in all layers, bytes."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size: int = 2 * config.num_hidden_layers * heads * dim * model.dtype.itemsize
    return size


def rows_that_fit(model: PreTrainedModel, length: int) -> int:
    """Rows of ``length`` positions that fit into the free memory of the model's device, 1 to 256.

    Counts keys and values, and the fp32 distributions of a step at four of them per row.
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = psutil.virtual_memory().available
    row = length * bytes_per_token(model) + 4 * 4 * model.config.get_text_config().vocab_size
    return max(1, min(MOST_ROWS, int(FREE_SHARE * free / row)))


# What torch's allocator on a CPU says; it raises no type of its own.
CPU_MESSAGES = ("can't allocate memory", "not enough memory")


class OutOfMemory(RuntimeError):
    """Memory ran out although no fewer rows can be decoded at once."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's or the host's memory is used up."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in CPU_MESSAGES)


def release_memory() -> None:
    """Gives back what nobody holds any more, so that a smaller attempt can have it."""
    gc.collect()  # the failed step's tensors hang on the frames of its traceback, which are cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
