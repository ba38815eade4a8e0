"""Log-probabilities of given tokens under p_L, for all positions side by side.

Under ``kv="keep"`` the distribution p_L(· | prefix) is a function of the token prefix alone, so what was
recorded while decoding can be computed again: the sequence is prefilled once, then every position is
run as an item that attends to the cached past, plain and recursed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lm_eval_eglr.decoding.attention import RowAttention
from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.items import Item, Items
from lm_eval_eglr.decoding.layer_stack import LayerStack
from lm_eval_eglr.decoding.recursion import entropy
from lm_eval_eglr.decoding.row_cache import RowCache

POSITIONS = 64  # run side by side; each reads a copy of the past


@torch.no_grad()
def token_logprobs(
    stack: LayerStack, recursion: RecursionConfig, prompt: Sequence[int], tokens: Sequence[int], span: int
) -> list[float]:
    """Returns ln p_L(token | prefix) of each token at temperature 1, nats.

    Args:
        stack: The model.
        recursion: As when the tokens were decoded.
        prompt: Prompt token ids, at least one.
        tokens: The continuation.
        span: L; 0 is the plain model.

    Raises:
        ValueError: Under ``kv="overwrite"``, where the state depends on the path; for an empty prompt.
    """
    if recursion.kv != "keep":
        raise ValueError(f"kv={recursion.kv!r}: log-probabilities can be recomputed under kv='keep' only")
    if not prompt:
        raise ValueError("prompt: expected at least one token, got an empty prompt")
    sequence = torch.tensor([*prompt, *tokens])
    cache = RowCache(1)
    cache.reserve(1, len(sequence))
    logprobs: list[float] = []
    with RowAttention(stack.model)(), stack.recording():
        cache.begin_prefill(slice(0, 1), 0, len(sequence))
        stack.forward(sequence[None], torch.arange(len(sequence))[None], cache)
        first, last = len(prompt) - 1, len(sequence) - 1
        for start in range(first, last, POSITIONS):
            positions = torch.arange(start, min(start + POSITIONS, last))
            slots = torch.zeros_like(positions)
            cache.begin_items(slots, positions, stored=0, live=1)
            normed = stack.forward(sequence[positions][:, None], positions[:, None], cache)
            plain = stack.unembed(normed[:, 0]).log_softmax(-1)
            gated = (entropy(plain) > recursion.entropy_threshold).nonzero()[:, 0].tolist()
            if span and recursion.max_recursions and gated:
                found = [Item(place, span) for place in gated]
                items: Items[int] = Items(recursion)
                items.join(found, stack.residuals, gated, plain[gated])
                while items:
                    left = positions[items.owners]
                    cache.begin_items(torch.zeros_like(left), left, stored=0, live=1)
                    normed = stack.forward(sequence[left][:, None], left[:, None], cache, items)
                    items.observe(stack.unembed(normed[:, 0]).log_softmax(-1))
                plain[gated] = torch.stack([item.logprobs for item in found if item.logprobs is not None])
            drawn = sequence[positions + 1].to(plain.device)
            logprobs += plain[torch.arange(len(drawn)), drawn].tolist()
    return logprobs
