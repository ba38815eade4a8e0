"""Tiny recurrent-depth models with random weights, and decoding them the slow and obvious way."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import EOS, VOCABULARY
from torch import Tensor
from transformers import Cache, HrmTextConfig, HrmTextForCausalLM, PreTrainedModel

from lm_eval_eglr.recurrent.demo_student import RecurrentStudentConfig, RecurrentStudentForCausalLM

OWN = 4  # recurrences of the tiny student's own
ORIGINAL = "EGLR_HUGINN_CODE"
"""Names a folder with raven_modeling_minimal.py and raven_config_minimal.py of Huginn's repository."""


def tiny_student(seed: int = 0, **changes: Any) -> RecurrentStudentForCausalLM:
    """In fp64, so that no draw falls between two roundings."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "mean_recurrence": OWN,
        "max_position_embeddings": 256,
        "initializer_range": 0.4,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
    }
    config = RecurrentStudentConfig(**{**sizes, **changes})
    return _made(RecurrentStudentForCausalLM, config, seed)


def tiny_hrm(seed: int = 0, **changes: Any) -> HrmTextForCausalLM:
    """Two high cycles of two low ones, in stacks of two layers."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "initializer_range": 0.4,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
        "H_cycles": 2,
        "L_cycles": 2,
    }
    return _made(HrmTextForCausalLM, HrmTextConfig(**{**sizes, **changes}), seed)


def _made(kind: Any, config: Any, seed: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(config).eval().double()


def original_code() -> Any:
    """The module of Huginn's authors; skips the test where no folder with it is named."""
    folder = os.environ.get(ORIGINAL)
    if not folder:
        pytest.skip(f"{ORIGINAL} names no folder with the original code")
    for name in ("raven_config_minimal", "raven_modeling_minimal"):
        full = f"eglr_original_huginn.{name}"
        if full in sys.modules:
            continue
        package = importlib.util.spec_from_loader("eglr_original_huginn", None, is_package=True)
        assert package is not None
        sys.modules.setdefault("eglr_original_huginn", importlib.util.module_from_spec(package))
        spec = importlib.util.spec_from_file_location(full, Path(folder) / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    module = sys.modules["eglr_original_huginn.raven_modeling_minimal"]
    # transformers 5 wants a mapping here, where the original has a list.
    tied = {"lm_head.weight": "transformer.wte.weight"}
    for kind in (module.RavenPreTrainedModel, module.RavenForCausalLM):
        kind._tied_weights_keys = tied
    return module


def tiny_original(seed: int = 0) -> PreTrainedModel:
    """Huginn's own class with two prelude, four core and two coda layers, in fp64."""
    code = original_code()
    config = sys.modules["eglr_original_huginn.raven_config_minimal"].RavenConfig(
        n_embd=32,
        n_heads=4,
        n_layers=8,
        block_size=256,
        vocab_size=VOCABULARY,
        padding_multiple=1,
        intermediate_size=48,
        n_layers_in_recurrent_block=4,
        mean_recurrence=OWN,
        n_layers_in_prelude=2,
        n_layers_in_coda=2,
        eos_token_id=EOS,
        pad_token_id=EOS,
        dtype="float32",
    )
    model = _made(code.RavenForCausalLM, config, seed)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        for weights in model.parameters():  # so that layers and positions matter
            weights.add_(0.1 * torch.randn_like(weights))
    return model


class SlowCache(Cache):
    """Keys and values of one sequence by layer, slot and position, for models that number layers as they run.

    A slot that a token did not write is read as the last one that it did.
    """

    def __init__(self, outer: int, core: int, budget: int) -> None:
        super().__init__(layers=[])
        self._outer, self._core, self._budget = outer, core, budget
        self._held: dict[tuple[int, int], dict[int, tuple[Tensor, Tensor]]] = {}
        self.positions: list[int] = []

    def update(self, key: Tensor, value: Tensor, number: int, *_: Any) -> tuple[Tensor, Tensor]:
        number = int(number)
        layer, slot = number, 0
        if number >= self._outer:
            layer = self._outer + (number - self._outer) % self._core
            slot = (number - self._outer) // self._core % self._budget
        held = self._held.setdefault((layer, slot), {})
        for place, position in enumerate(self.positions):
            held[position] = key[:, :, place : place + 1], value[:, :, place : place + 1]
        seen = [self._latest(layer, slot, position) for position in range(self.positions[-1] + 1)]
        keys, values = zip(*seen, strict=True)
        return torch.cat(keys, 2), torch.cat(values, 2)

    def _latest(self, layer: int, slot: int, position: int) -> tuple[Tensor, Tensor]:
        while position not in self._held.get((layer, slot), {}):
            slot -= 1
        return self._held[layer, slot][position]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


@torch.no_grad()
def slow_greedy(
    model: Any,
    cache: Any,
    prompt: Sequence[int],
    count: int,
    recurrences: int,
    *,
    states: Any = None,
    exits: Any = None,
) -> tuple[list[int], list[int]]:
    """Greedy tokens and their iterations: one sequence, one token at a time, through Huginn's public calls.

    Args:
        model: Has the calls.
        cache: What it keeps keys and values in, empty.
        prompt: Token ids.
        count: Tokens to decode.
        recurrences: Iterations at most; the prompt but for its last token makes all.
        states: First states by position, ``[1, tokens, dim]`` of positions; zeros by default.
        exits: ``exits(states, before, logprobs, logprobs_before)`` says whether iterations end.
    """

    def run(ids: Sequence[int], start: int, may_exit: bool) -> tuple[Tensor, int]:
        if isinstance(cache, SlowCache):
            cache.positions = list(range(start, start + len(ids)))
        shared = {
            "position_ids": torch.arange(start, start + len(ids))[None],
            "past_key_values": cache,
        }
        embedded, number = model.embed_inputs(torch.tensor([list(ids)]), **shared)
        x = (
            torch.zeros_like(embedded)
            if states is None
            else states(shared["position_ids"][0], embedded)[None]
        )
        known = None
        for step in range(recurrences):
            before = x
            x, number, _ = model.iterate_one_step(embedded, x, block_idx=number, current_step=step, **shared)
            if exits is None or not may_exit:
                continue
            logprobs = model.predict_from_latents(x, **shared).logits[0, -1].log_softmax(-1)
            if known is not None and exits(x[0, -1], before[0, -1], logprobs, known):
                return logprobs, step + 1
            known = logprobs
        return model.predict_from_latents(x, **shared).logits[0, -1].log_softmax(-1), recurrences

    if len(prompt) > 1:
        run(prompt[:-1], 0, may_exit=False)
    tokens, iterations = list(prompt), []
    for _ in range(count):
        logprobs, made = run(tokens[-1:], len(tokens) - 1, may_exit=True)
        tokens.append(int(logprobs.argmax()))
        iterations.append(made)
        if tokens[-1] == EOS:
            break
    return tokens[len(prompt) :], iterations
