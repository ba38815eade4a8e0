"""Proof at start, on the loaded model, that running it row by row and running layers again are exact."""

from __future__ import annotations

import torch
from torch import Tensor

from lm_eval_eglr.decoding.model.attention import Past
from lm_eval_eglr.decoding.model.cuda_graphs import can_capture
from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.model.layer_stack import LayerStack, UnsupportedModelError
from lm_eval_eglr.decoding.model.passes import (
    DynamicPass,
    Pass,
    PrefillPass,
    RecursionInputs,
    StaticAddresses,
    StaticPass,
)

LENGTH = 6
PREFILLED = 4
# Largest error of a logit, in standard deviations of the logits.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
HALF_TOLERANCE = 0.25


@torch.no_grad()
def check_stack(stack: LayerStack) -> None:
    """Compares this engine's logits with the model's own, and a second run of layers with the first.

    Two rows of six tokens are run by the model's own forward, then through the row cache with its
    attention, at different lengths, then with layers applied once more to what they had, beside a row
    that runs through all of them and alone. A model that takes its attention or its positions from
    elsewhere than transformers' interfaces, or whose layers remember something, is found here. So is one
    whose layers are to be compiled and cannot be, or whose compiled layers compute something else.

    Raises:
        UnsupportedModelError: If they differ by more than rounding.
    """
    vocabulary = next(stack.model.get_input_embeddings().parameters()).shape[0]
    tokens = (torch.arange(2 * LENGTH) * 7919 + 1).remainder(vocabulary).view(2, LENGTH)
    name = type(stack.model).__name__
    compiled, stack.compiled = stack.compiled, None
    try:
        with stack.evaluating():
            own = stack.model(input_ids=tokens.to(stack.device), use_cache=False).logits.float()
        found = _run_rows(stack, tokens)
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"{name} cannot be run row by row ({type(error).__name__}: {error})"
        ) from error
    finally:
        stack.compiled = compiled
    if compiled is not None:
        found.append(("compiled layers", [0, 1], _run_compiled(stack, tokens)))
    tolerance = TOLERANCE.get(stack.model.dtype, HALF_TOLERANCE)
    wanted = torch.stack([own[0, LENGTH - 1], own[1, PREFILLED]]).log_softmax(-1)
    for what, rows, logprobs in found:
        expected = wanted[rows].to(logprobs.device)
        deviation = ((logprobs - expected).abs().max() / wanted.std().clamp_min(1e-12)).item()
        if not deviation <= tolerance:
            raise UnsupportedModelError(
                f"{name}: logits of {what} are off by {deviation:.2g} standard deviations "
                f"(at most {tolerance:g}); its layers are not what this engine expects{_hint(stack)}"
            )


def _run_rows(stack: LayerStack, tokens: Tensor) -> list[tuple[str, list[int], Tensor]]:
    """ln p of row 0 at its sixth, row 1 at its fifth token: how, of which rows, ``[rows, vocab]``."""
    cache = KVCache(2)
    cache.reserve(2, LENGTH)
    with stack.installed():
        start = tokens[:, :PREFILLED], torch.arange(PREFILLED).expand(2, -1)
        stack.forward(PrefillPass(cache, slice(0, 2), 0, PREFILLED), *start)
        more = tokens[:1, PREFILLED : PREFILLED + 1], torch.tensor([[PREFILLED]])
        stack.forward(PrefillPass(cache, slice(0, 1), PREFILLED, 1), *more)
        positions = torch.tensor([LENGTH - 1, PREFILLED])
        last = tokens[[0, 1], positions]
        output = stack.run(DynamicPass(cache, None, positions, 2, stack.depth), last, positions)
        found = [("rows", [0, 1], output.logprobs)]
        half = (stack.depth + 1) // 2
        inputs = {span: output.residuals.before(span)[:, -1] for span in (stack.depth, half)}
        # One row through all layers, and one that joins it twice; then the upper layers alone.
        for rows, spans in (([0, 1, 1], [stack.depth, half]), ([0, 1], [half, half])):
            again = [inputs[span][row] for row, span in zip(rows[-len(spans) :], spans, strict=True)]
            joining = RecursionInputs(spans, torch.stack(again), lambda applied: applied)
            slots = torch.tensor(rows)
            running = DynamicPass(cache, slots, positions[rows], 2, stack.depth, joining)
            output = stack.run(running, last[rows], positions[rows])
            found.append(("layers run again", rows, output.logprobs))
        stack.bytes_per_token = cache.bytes_per_token
        return found


def _run_compiled(stack: LayerStack, tokens: Tensor) -> Tensor:
    """ln p of the same rows at the same tokens, all layers compiled, ``[2, vocab]``."""
    cache = KVCache(2)
    cache.reserve(2, LENGTH)
    with stack.installed():
        start = tokens[:, : LENGTH - 1], torch.arange(LENGTH - 1).expand(2, -1)
        stack.forward(PrefillPass(cache, slice(0, 2), 0, LENGTH - 1), *start)
        positions = torch.tensor([LENGTH - 1, PREFILLED])
        return stack.run(_plain_pass(stack, cache, positions), tokens[[0, 1], positions], positions).logprobs


def _plain_pass(stack: LayerStack, cache: KVCache, positions: Tensor) -> Pass:
    """A pass of the first rows of a cache, of the kind that decodes: others are not worth compiling."""
    count, device = len(positions), stack.device
    if stack.compiled is None or not can_capture(stack.model):
        return DynamicPass(cache, None, positions, count, stack.depth)
    rows, at = torch.arange(count, device=device), positions.to(device)
    first = torch.full_like(rows, -1)
    addresses = StaticAddresses(Past(count, cache.length, at), rows, first)
    size = (count, stack.model.config.get_text_config().hidden_size)
    inputs = torch.zeros(size, dtype=stack.model.dtype, device=device)
    return StaticPass(cache, addresses, stack.depth, (), inputs, lambda hidden: hidden)


def _hint(stack: LayerStack) -> str:
    """Fused attention of some versions leaves out what a model's own has, such as soft-capping."""
    used = stack.model.config._attn_implementation
    return "" if used == "eager" else f", or {used} attention is not exact: try attn_implementation=eager"


ROUNDING_ROWS = 16
ROUNDING_LENGTH = 24


@torch.no_grad()
def measured_rounding(stack: LayerStack) -> float:
    """How far rounding moves a likely log-probability of this model on this machine, nats.

    The same rows run in two shapes, as decoding has them: one token each beside each other, and all tokens
    of one row at a time. The mean of |Δ ln p| under p, over all rows. Models of fp32 and more have their
    bounds from :func:`~lm_eval_eglr.decoding.numerics.rounding_of`: they move too little to be seen here.
    """
    vocabulary = next(stack.model.get_input_embeddings().parameters()).shape[0]
    count, length = ROUNDING_ROWS, ROUNDING_LENGTH
    tokens = (torch.arange(count * length) * 7919 + 1).remainder(vocabulary).view(count, length)
    together, alone = KVCache(count), KVCache(1)
    together.reserve(count, length)
    alone.reserve(1, length)
    moved = []
    with stack.installed():
        start = slice(0, count), torch.arange(length - 1).expand(count, -1)
        stack.forward(PrefillPass(together, start[0], 0, length - 1), tokens[:, :-1], start[1])
        last = torch.full((count,), length - 1)
        logprobs = stack.run(_plain_pass(stack, together, last), tokens[:, -1], last).logprobs
        for row in range(count):
            whole = torch.arange(length)[None]
            normed = stack.forward(PrefillPass(alone, slice(0, 1), 0, length), tokens[row : row + 1], whole)
            other = stack.unembed(normed[:, -1]).log_softmax(-1)[0]
            moved.append((other.exp() * (other - logprobs[row]).nan_to_num(0.0).abs()).sum())
    return float(torch.stack(moved).mean())
