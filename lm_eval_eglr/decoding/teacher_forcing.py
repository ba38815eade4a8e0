"""Log-probabilities of given tokens under p_L, for all positions side by side.

The distribution p_L(· | prefix) is a function of the token prefix alone, so what was recorded while decoding
can be computed again: the sequence is prefilled once, then every position runs as a query of its own that
attends to the cached past, plain and recursed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.depth import UPDATE_RULES, TopLayers
from lm_eval_eglr.decoding.engine import Decodable
from lm_eval_eglr.decoding.model.compiled_layers import Backend
from lm_eval_eglr.decoding.model.cuda_graphs import make_runner
from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.model.layer_stack import LayerStack
from lm_eval_eglr.decoding.model.passes import DynamicPass, PrefillPass, RecursionInputs
from lm_eval_eglr.decoding.model.self_check import check_stack, measured_rounding
from lm_eval_eglr.decoding.numerics import rounding_of
from lm_eval_eglr.decoding.prefill import read_layers
from lm_eval_eglr.decoding.recursion import ActiveRecursions

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
        ValueError: For an empty prompt.
    """
    if not prompt:
        raise ValueError("prompt: expected at least one token, got an empty prompt")
    sequence = torch.tensor([*prompt, *tokens])
    cache = KVCache(1)
    cache.reserve(1, len(sequence))
    logprobs: list[float] = []
    with stack.installed():
        everything = torch.arange(len(sequence))[None]
        stack.forward(PrefillPass(cache, slice(0, 1), 0, len(sequence)), sequence[None], everything)
        first, last = len(prompt) - 1, len(sequence) - 1
        for start in range(first, last, POSITIONS):
            positions = torch.arange(start, min(start + POSITIONS, last))
            final = _distributions(stack, cache, recursion, sequence[positions], positions, span)
            drawn = sequence[positions + 1].to(final.device)
            logprobs += final[torch.arange(len(drawn)), drawn].tolist()
    return logprobs


def _distributions(
    stack: LayerStack,
    cache: KVCache,
    recursion: RecursionConfig,
    tokens: Tensor,
    positions: Tensor,
    span: int,
) -> Tensor:
    """ln p_L at some positions of the only row, ``[positions, vocab]``."""
    slots = torch.zeros_like(positions)
    active = ActiveRecursions(recursion, rounding=0.0)
    running = DynamicPass(cache, slots, positions, 1, stack.depth, stored=False)
    output = stack.run(running, tokens, positions)
    verdict = active.step(output, len(tokens))
    final = output.logprobs.clone()
    gated = verdict.gated.nonzero()[:, 0].cpu().numpy()
    if not (span and recursion.max_recursions and len(gated)):
        return final
    # What the recursions call slots are positions here: they are what tells them apart.
    active.update(np.zeros(0, bool), output, verdict, gated, gated, np.full(len(gated), span))
    while len(active):
        left = torch.from_numpy(active.slots)
        joining = RecursionInputs(active.spans.tolist(), active.inputs(), active.outputs)
        running = DynamicPass(cache, slots[left], positions[left], 1, stack.depth, joining, stored=False)
        output = stack.run(running, tokens[left], positions[left])
        verdict = active.step(output, 0)
        final[left] = output.logprobs
        none = np.zeros(0, np.int64)
        active.update(verdict.ended.cpu().numpy(), output, verdict, none, none, none)
    return final


def layered(
    model: PreTrainedModel, config: RecursionConfig, cuda_graphs: bool, compile_layers: bool | Backend = False
) -> Decodable:
    """A model as a stack of layers, whose top ones are applied again.

    Raises:
        UnsupportedModelError: If it is none, or its layers are to be compiled and cannot be.
    """
    stack = LayerStack(model, compile_layers)
    check_stack(stack)
    update, name = UPDATE_RULES[config.update], type(model).__name__
    known = rounding_of(model.dtype)
    return Decodable(
        stack,
        TopLayers(update, config.strength, stack.depth, config.max_recursions, name),
        config,
        make_runner(cuda_graphs),
        read_layers(stack),
        partial(ActiveRecursions, config),
        partial(token_logprobs, stack, config),
        measured_rounding(stack) if known is None else known,
        getattr(model.config.get_text_config(), "max_position_embeddings", None),
        # Compiled code and graphs have shapes that do not depend on who shares a prompt.
        shares_prompts=not compile_layers and stack.device.type == "cpu",
    )
