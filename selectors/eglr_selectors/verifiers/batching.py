"""Running a transformers model over token sequences of different lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def forward_batches(
    model: Any, sequences: Sequence[Sequence[int]], pad_token_id: int, batch_size: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Runs a model over sequences, right-padded, longest first.

    Args:
        model: Called with ``input_ids`` and ``attention_mask``, both ``[batch, length]``.
        sequences: Token ids.
        pad_token_id: What fills shorter sequences up.
        batch_size: How many at once.

    Yields:
        A sequence's index, and its row of the model's first output without the padding.
    """
    import torch

    device = next(model.parameters()).device
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        width = max(len(sequences[i]) for i in batch)
        ids = torch.full((len(batch), width), pad_token_id, dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, i in enumerate(batch):
            ids[row, : len(sequences[i])] = torch.tensor(sequences[i], dtype=torch.long)
            mask[row, : len(sequences[i])] = 1
        with torch.inference_mode():
            output = model(input_ids=ids.to(device), attention_mask=mask.to(device))[0].float().cpu()
        for row, i in enumerate(batch):
            # Outputs per token lose their padding; outputs per sequence have none.
            yield i, output[row, : len(sequences[i])] if output.dim() == 3 else output[row]


def longest_input(model: Any, tokenizer: Any) -> int:
    """Returns how many tokens the model takes."""
    limit = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return min(limit, tokenizer.model_max_length)
