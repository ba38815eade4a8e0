"""Weights are packed for a run on a CPU: the model is left as it was, and changed weights are seen."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import torch
from tiny_models import tiny_model

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.model import packed_weights

PROMPTS = ["One apple", "Tom and then"]


@pytest.fixture(autouse=True)
def _pack_small_weights_too(monkeypatch):
    monkeypatch.setattr(packed_weights, "SMALLEST", 0)


def decode(model, tokenizer):
    """Every rollout's tokens and their log-probabilities; few rows, a gate that opens."""
    return decoded_by(new_decoder(model, tokenizer))


def new_decoder(model, tokenizer):
    return PoolDecoder(
        model, tokenizer, spans="0:2", temperatures="0:0.8x2", entropy_threshold=1.0, trace=True
    )


def decoded_by(decoder):
    pools = decoder.generate(PROMPTS, max_new_tokens=6, progress=False)
    return [(r.tokens, r.telemetry.token_logprobs) for pool in pools for r in pool]


def assert_same(found, expected):
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]
    for (_, logprobs), (_, others) in zip(found, expected, strict=True):
        assert logprobs == pytest.approx(others, abs=1e-4)


def test_weights_that_change_between_runs_are_seen(tokenizer):
    """Also through ``.data``, as adapters are merged, which leaves no trace in a tensor's version."""
    model = tiny_model()
    decoder = new_decoder(model, tokenizer)
    before = decoded_by(decoder)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(1.5)
    after = decoded_by(decoder)
    assert after != before
    assert_same(after, decode(model, tokenizer))


def test_a_run_leaves_the_layers_as_they_were(tokenizer):
    model = tiny_model()
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    decode(model, tokenizer)
    for name, module in model.named_modules():
        assert module.__dict__.keys() == before[name].keys()


def test_where_memory_is_short_nothing_is_packed_and_the_rollouts_are_the_same(tokenizer, monkeypatch):
    expected = decode(tiny_model(), tokenizer)
    packs: list[int] = []
    reorder = torch.ops.mkldnn._reorder_linear_weight
    monkeypatch.setattr(
        torch.ops.mkldnn, "_reorder_linear_weight", lambda weight: packs.append(1) or reorder(weight)
    )
    assert_same(decode(tiny_model(), tokenizer), expected)
    if not torch.backends.mkldnn.is_available():
        pytest.skip("no packed weights in this build of torch")
    assert packs
    packs.clear()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    assert_same(decode(tiny_model(), tokenizer), expected)
    assert not packs
