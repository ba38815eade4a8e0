"""A recurrent-depth model as the engine takes it: recognised, checked against its own forward, or refused."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel

import lm_eval_eglr.recurrent.hrm_text  # registers its adapter
import lm_eval_eglr.recurrent.huginn  # noqa: F401  (likewise)
from lm_eval_eglr.decoding.engine import Decodable
from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.model.layer_stack import UnsupportedModelError, evaluating
from lm_eval_eglr.decoding.model.self_check import HALF_TOLERANCE, TOLERANCE
from lm_eval_eglr.decoding.numerics import at_least_fp32, on_device, rounding_of
from lm_eval_eglr.decoding.prefill import Reading
from lm_eval_eglr.recurrent.axis import RecurrentBlock
from lm_eval_eglr.recurrent.config import RecurrentConfig
from lm_eval_eglr.recurrent.models import find_recurrent
from lm_eval_eglr.recurrent.reading import read_rows, token_logprobs
from lm_eval_eglr.recurrent.runner import NoRecursions, RecurrentRunner
from lm_eval_eglr.recurrent.speculation import DraftingRunner
from lm_eval_eglr.recurrent.stack import RecurrentStack, Tokens

CHECKED_RECURRENCES = 3  # at most; the check is of the wiring
LENGTH = 6


def recurrent(model: PreTrainedModel, config: RecurrentConfig) -> Decodable | None:
    """A model that an adapter recognises; ``None`` if none does.

    Raises:
        UnsupportedModelError: If it is recognised, and cannot be decoded; the message says why.
    """
    kind = find_recurrent(model)
    if kind is None:
        return None
    adapter = kind(model, config.state_seed)
    stack = RecurrentStack(adapter, config)
    stack.rounding = check_recurrent(stack)
    return Decodable(
        stack,
        RecurrentBlock(
            adapter.recurrences,
            adapter.core_layers,
            adapter.predict_layers if config.rule is not None and config.rule.reads_distributions else None,
            type(model).__name__,
        ),
        config,
        RecurrentRunner if config.draft_recurrences is None else DraftingRunner,
        partial(read_rows, stack),
        NoRecursions,
        partial(token_logprobs, stack),
        stack.rounding,
        adapter.positions,
    )


@torch.no_grad()
def check_recurrent(stack: RecurrentStack) -> float:
    """Compares the engine's logits with the model's own forward at the ends of two rows.

    Returns:
        How far a log-probability moves by rounding, nats.

    Raises:
        UnsupportedModelError: If they differ by more than rounding.
    """
    name = type(stack.model).__name__
    level = min(stack.recurrent.recurrences, CHECKED_RECURRENCES)
    vocabulary = next(stack.model.get_input_embeddings().parameters()).shape[0]
    rows = [((np.arange(LENGTH - row) + 7 * row) * 7919 + 1) % vocabulary for row in range(2)]
    exact = RecurrentStack(stack.recurrent, RecurrentConfig())
    try:
        cache = KVCache(2)
        cache.reserve(2, LENGTH)
        with exact.installed():
            ends = np.array([len(row) - 1 for row in rows])
            parts = [tuple(row.tolist()) for row in rows]
            read_rows(exact, cache, [Reading(n, 0, row[:-1], row, level) for n, row in enumerate(parts)])
            last = np.array([row[-1] for row in rows])
            tokens = Tokens.causal(last, ends, np.arange(2), np.full(2, level))
            found, _ = exact.run(cache, tokens, np.arange(2))
        exact.measure(cache)
        stack.outer_bytes, stack.core_bytes = exact.outer_bytes, exact.core_bytes
        own = torch.stack([_own_logprobs(stack, row, level) for row in rows]).to(found)
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"{name} cannot be run row by row ({type(error).__name__}: {error})"
        ) from error
    moved = (found - own).abs()
    deviation = (moved.max() / own.std().clamp_min(1e-12)).item()
    tolerance = TOLERANCE.get(stack.model.dtype, HALF_TOLERANCE)
    if own.dtype == torch.float32:
        tolerance = max(tolerance, TOLERANCE[torch.float32])
    if not deviation <= tolerance:
        raise UnsupportedModelError(
            f"{name}: logits of rows are off by {deviation:.2g} standard deviations (at most {tolerance:g}); "
            f"it is not what its adapter {stack.recurrent.name} expects"
        )
    known = rounding_of(stack.model.dtype)
    return float((own.exp() * moved.nan_to_num(0.0)).sum(-1).mean()) if known is None else known


def _own_logprobs(stack: RecurrentStack, row: np.ndarray, level: int) -> torch.Tensor:
    """ln p at the end of a sequence, by the model itself, ``[vocab]``."""
    adapter, device = stack.recurrent, stack.device
    tokens, positions = on_device(row, device), torch.arange(len(row), device=device)
    hidden = next(stack.model.get_input_embeddings().parameters())[:1]
    states = adapter.begin(hidden.expand(len(row), -1), positions)
    with evaluating(stack.model):
        return at_least_fp32(adapter.own_logits(tokens, level, states)[-1]).log_softmax(-1)
