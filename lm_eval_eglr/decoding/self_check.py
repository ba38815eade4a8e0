"""Proof at start, on the loaded model, that running it row by row and running layers again are exact."""

from __future__ import annotations

import torch
from torch import Tensor

from lm_eval_eglr.decoding.attention import RowAttention
from lm_eval_eglr.decoding.layer_stack import LayerStack, UnsupportedModelError
from lm_eval_eglr.decoding.row_cache import RowCache

LENGTH = 6
PREFILLED = 4
# Largest error of a logit, in standard deviations of the logits.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
HALF_TOLERANCE = 0.25


@torch.no_grad()
def check_stack(stack: LayerStack) -> None:
    """Compares this engine's logits with the model's own, and a second run of all layers with the first.

    Two rows of six tokens are run by the model's own forward, then through the row cache with its
    attention, at different lengths. A model that takes its attention or its positions from elsewhere than
    transformers' interfaces, or whose layers remember something, is found here.

    Raises:
        UnsupportedModelError: If they differ by more than rounding.
    """
    vocabulary = next(stack.model.get_input_embeddings().parameters()).shape[0]
    tokens = (torch.arange(2 * LENGTH) * 7919 + 1).remainder(vocabulary).view(2, LENGTH)
    name = type(stack.model).__name__
    try:
        own = stack.model(input_ids=tokens.to(stack.device), use_cache=False).logits.float()
        ours, applied = _run_rows(stack, tokens)
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"{name} cannot be run row by row ({type(error).__name__}: {error})"
        ) from error
    tolerance = TOLERANCE.get(stack.model.dtype, HALF_TOLERANCE)
    wanted = torch.stack([own[0, LENGTH - 1], own[1, PREFILLED]]).to(ours.device)
    for what, found in (("rows", ours), ("layers run again", applied.to(ours.device))):
        deviation = ((found - wanted).abs().max() / wanted.std().clamp_min(1e-12)).item()
        if not deviation <= tolerance:
            raise UnsupportedModelError(
                f"{name}: logits of {what} are off by {deviation:.2g} standard deviations "
                f"(at most {tolerance:g}); its layers are not what this engine expects{_hint(stack)}"
            )


def _run_rows(stack: LayerStack, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of row 0 at its sixth, row 1 at its fifth token: of a step, and of all layers run again."""
    cache = RowCache(2)
    cache.reserve(2, LENGTH)
    with RowAttention(stack.model)(), stack.recording():
        cache.begin_prefill(slice(0, 2), 0, PREFILLED)
        stack.forward(tokens[:, :PREFILLED], torch.arange(PREFILLED).expand(2, -1), cache)
        cache.begin_prefill(slice(0, 1), PREFILLED, 1)
        stack.forward(tokens[:1, PREFILLED : PREFILLED + 1], torch.tensor([[PREFILLED]]), cache)
        positions = torch.tensor([LENGTH - 1, PREFILLED])
        cache.begin_step(positions)
        last = tokens[[0, 1], positions][:, None]
        normed = stack.forward(last, positions[:, None], cache)
        rows = torch.arange(2)
        cache.begin_items(rows, positions, cache.width, writes=False)
        inputs = stack.layer_input(stack.depth)[:, -1]
        again = stack.apply_top(inputs, [stack.depth] * 2, rows, cache)
        return stack.unembed(normed[:, 0]), stack.logits(again)


def _hint(stack: LayerStack) -> str:
    """Fused attention of some versions leaves out what a model's own has, such as soft-capping."""
    used = stack.model.config._attn_implementation
    return "" if used == "eager" else f", or {used} attention is not exact: try attn_implementation=eager"
