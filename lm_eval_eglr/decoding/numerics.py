"""What rounding does, and passes over distributions that do not suffer from it.

Everything that is not a layer is computed in fp32 at least. Distributions are passed over a few rows at a
time on a CPU: one over a vocabulary is 200 kB and more, a step has dozens, and an intermediate result of
that size comes as fresh memory from the operating system each time, which takes longer than computing it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

ELEMENTS = 1 << 18  # of a block of rows: 1 MiB in fp32
CONFIDENCE_TOKENS = 20  # DeepConf, arXiv 2508.15260, section 3
LARGE_VOCABULARY = 5120  # from which a few tokens are sought chunk by chunk first
CHUNK = 128
SMALL_VOCABULARY = 512  # up to which numpy sorts all of a row as fast as it finds the largest


def at_least_fp32(values: Tensor) -> Tensor:
    """Returns half-precision values in fp32, and all others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def on_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Values on a device. What the host has goes there by way of pinned memory, so that nobody waits.

    On a CPU the tensor may share the memory of the values.
    """
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor if tensor.device == device else tensor.to(device)


def together_on_device(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Arrays on a device, as :func:`on_device`, by one transfer: what a small one costs is to begin it."""
    if device.type != "cuda":
        return [on_device(array, device) for array in arrays]
    # Each begins where numbers of its type may.
    parts = [array.tobytes().ljust(-(-array.nbytes // 8) * 8, b"\0") for array in arrays]
    begins = np.cumsum([0, *(len(part) for part in parts[:-1])]).tolist()
    sent = on_device(np.frombuffer(bytearray(b"".join(parts)), np.uint8), device)
    return [
        sent[begin : begin + array.nbytes].view(torch.from_numpy(array).dtype).view(array.shape)
        for array, begin in zip(arrays, begins, strict=True)
    ]


def row_blocks(values: Tensor) -> Iterator[slice]:
    """Blocks of the rows of ``[rows, vocab]`` on a CPU; all rows at once on other devices."""
    rows, width = values.shape
    size = max(1, ELEMENTS // width) if values.device.type == "cpu" else max(1, rows)
    for start in range(0, rows, size):
        yield slice(start, start + size)


def by_blocks(function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """``function(*values)``, ``[..., rows]``, of tensors ``[rows, vocab]`` whose rows it treats alike."""
    first = values[0]
    if first.dim() != 2 or first.device.type != "cpu" or first.numel() <= ELEMENTS:
        return function(*values)
    return torch.cat([function(*(each[block] for each in values)) for block in row_blocks(first)], -1)


def entropy(logprobs: Tensor) -> Tensor:
    """H(p) = -Σ p ln p in nats: ``[..., vocab]`` to ``[...]``. Impossible tokens count 0."""
    # Clamped, because 0 times minus infinity is not a number; a NaN stays one.
    low = torch.finfo(logprobs.dtype).min
    return by_blocks(lambda rows: -rows.exp().mul_(rows.clamp_min(low)).sum(-1), logprobs)


def kl_divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (ln p − ln q) in nats, ``logprobs`` is ln p: ``[..., vocab]`` to ``[...]``."""
    low = torch.finfo(logprobs.dtype).min

    def divergence(rows: Tensor, other: Tensor) -> Tensor:
        apart = rows.clamp_min(low).sub_(other.clamp_min(low))
        return rows.exp().mul_(apart).sum(-1).clamp_min(0.0)

    return by_blocks(divergence, logprobs, reference)


def statistics(logprobs: Tensor) -> Tensor:
    """What is known of distributions ``[rows, vocab]``, nats: ``[4, rows]``.

    Returns:
        H(p), NaN where a distribution is not finite; mean negative log-probability of the 20 likeliest
        tokens; self-certainty, the divergence from the uniform distribution; and the lead of the likeliest
        token over the second.
    """
    return by_blocks(_statistics, logprobs)


def largest(values: Tensor, count: int) -> Tensor:
    """The ``count`` largest of each row, in falling order: ``[rows, width]`` to ``[rows, count]``."""
    if values.shape[-1] >= max(LARGE_VOCABULARY, 2 * count * CHUNK):
        values = _with_largest(values, count)
    if values.device.type != "cpu":
        return values.topk(count).values
    # torch takes up to ten times as long.
    rows, before = values.numpy(), values.shape[-1] - count
    upper = rows if values.shape[-1] <= SMALL_VOCABULARY else np.partition(rows, before, -1)[:, before:]
    return torch.from_numpy(np.sort(upper, -1)[:, : -count - 1 : -1].copy())


def _with_largest(values: Tensor, count: int) -> Tensor:
    """A few of the values of each row, with its ``count`` largest: to find these takes many passes, and one
    is enough to find the chunks with the largest maxima, which have them all."""
    chunks, rest = in_chunks(values)
    places = chunks.amax(-1).topk(count).indices
    found = chunks.gather(1, places[..., None].expand(-1, -1, CHUNK)).flatten(1)
    return torch.cat([found, rest], -1)


def in_chunks(values: Tensor) -> tuple[Tensor, Tensor]:
    """Views of ``[rows, width]``: whole chunks, ``[rows, chunks, CHUNK]``, and what is left behind them."""
    whole = values.shape[-1] // CHUNK * CHUNK
    return values[:, :whole].unflatten(-1, (-1, CHUNK)), values[:, whole:]


def _statistics(logprobs: Tensor) -> Tensor:
    size = logprobs.shape[-1]
    likeliest = largest(logprobs, min(CONFIDENCE_TOKENS, size))
    lead = likeliest[:, 0] - likeliest[:, 1] if size > 1 else likeliest[:, 0] + torch.inf
    certainty = -logprobs.mean(-1) - math.log(size)
    return torch.stack([entropy(logprobs), -likeliest.mean(-1), certainty, lead])


# How far a log-probability moves when its sums are taken in another order, nats; docs/reliability.md says
# how this was measured. Types of fewer bits move so far that it is measured on the loaded model.
ROUNDING = {torch.float64: 1e-11, torch.float32: 1e-4}


def rounding_of(dtype: torch.dtype) -> float | None:
    """How far rounding moves a log-probability of a model of that type, nats; ``None`` if that depends."""
    return ROUNDING.get(dtype)
