"""Recurrent models on a CUDA device, where there is none; tests/pretended_cuda.py says what that can tell."""

from __future__ import annotations

import pytest
import torch
from pretended_cuda import pretended_cuda, put
from recurrent_models import tiny_student

from lm_eval_eglr.decoding import PoolDecoder

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a real CUDA device is there to test on")

PROMPTS = ["One apple", "What is 12 * 7? Think and", "T"]
GRID = {"recurrences": "1:2:4", "temperatures": "0:0.8"}
OPTIONS = [
    GRID,
    {**GRID, "exit": "kl", "max_rows": 4},
    {"recurrences": "4", "temperatures": "0:0.8x2", "draft_recurrences": 2, "draft_tokens": 2},
]


def decode(model, tokenizer, options):
    pools = PoolDecoder(model, tokenizer, **options).generate(PROMPTS, max_new_tokens=10, progress=False)
    return [
        [(rollout.cell, rollout.tokens, rollout.telemetry.recursions) for rollout in pool] for pool in pools
    ]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rollouts_are_those_of_a_cpu(options, tokenizer, monkeypatch):
    expected = decode(tiny_student(), tokenizer, options)
    with pretended_cuda(monkeypatch):
        assert decode(put(tiny_student()), tokenizer, options) == expected
