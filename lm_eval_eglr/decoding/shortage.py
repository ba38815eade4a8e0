"""Telling that memory ran out, whichever allocator says so."""

from __future__ import annotations

import gc

import torch

# What torch's allocator on a CPU says; it raises no type of its own.
CPU_MESSAGES = ("can't allocate memory", "not enough memory")


class OutOfMemory(RuntimeError):
    """Memory ran out although no fewer rows can be decoded at once."""


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that a device's or the host's memory is used up."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in CPU_MESSAGES)


def release_memory() -> None:
    """Gives back what nobody holds any more, so that a smaller attempt can have it."""
    gc.collect()  # the failed step's tensors hang on the frames of its traceback, which are cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
