"""A model split over devices decodes what it decodes on one, recursion included.

Where there is one device only, the other one is the disk: accelerate then keeps a layer's weights off
the device and moves them in for each call, through the same hooks that move activations between GPUs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate import dispatch_model
from tiny_models import DEPTH, tiny_model

from lm_eval_eglr.decoding import PoolDecoder

PROMPTS = ["One apple", "Tom and then"]
BELOW = ["model.embed_tokens", "model.rotary_emb", *(f"model.layers.{i}" for i in range(DEPTH - 1))]
ABOVE = [f"model.layers.{DEPTH - 1}", "model.norm", "lm_head"]


def rollouts(model, tokenizer):
    decoder = PoolDecoder(
        model, tokenizer, spans="0:1:3", temperatures="0:0.8x2", entropy_threshold=1.0, trace=True
    )
    pools = decoder.generate(PROMPTS, max_new_tokens=8, progress=False)
    assert sum(rollout.telemetry.recursions for pool in pools for rollout in pool) > 10
    return pools, decoder


@pytest.mark.parametrize("away", [BELOW, ABOVE], ids=["embeddings", "head"])
def test_split_models_decode_the_same(away, tokenizer, tmp_path: Path):
    """The span of 3 crosses the boundary between the devices, that of 1 does not."""
    device_map = dict.fromkeys(BELOW + ABOVE, "cpu") | dict.fromkeys(away, "disk")
    split = dispatch_model(tiny_model().double(), device_map, main_device="cpu", offload_dir=str(tmp_path))
    assert any(parameter.is_meta for parameter in split.parameters())
    expected, _ = rollouts(tiny_model().double(), tokenizer)
    found, decoder = rollouts(split, tokenizer)
    # In fp64, because linear layers that accelerate has wrapped are summed in another order.
    for before, after in zip(expected, found, strict=True):
        assert [(r.cell, r.tokens, r.finish_reason) for r in after] == [
            (r.cell, r.tokens, r.finish_reason) for r in before
        ]
    rollout = found[0][-1]
    assert decoder.logprobs(PROMPTS[0], rollout) == pytest.approx(rollout.telemetry.token_logprobs, abs=1e-4)
