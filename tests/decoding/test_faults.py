"""A row whose model fails is retired and marked, and no other row notices; odd prompts are decoded."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import VOCABULARY, byte_tokenizer, tiny_model

from lm_eval_eglr.decoding import PoolDecoder

GRID = {"spans": "0:1:3", "temperatures": "0:0.8", "entropy_threshold": 0.5}
PROMPTS = ["One apple", "Tom and then", "What is 12 * 7?", "So"]


def decode(model, tokenizer, prompts=PROMPTS, **options):
    """In fp64, so that company in a batch changes no token; see test_invariance."""
    decoder = PoolDecoder(model, tokenizer, **GRID, **options)
    return decoder.generate(prompts, max_new_tokens=10, progress=False)


def cells(pools):
    return [[(rollout.cell, rollout.tokens, rollout.finish_reason) for rollout in pool] for pool in pools]


@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf], ids=str)
def test_a_row_without_finite_logits_is_retired_and_marked(fault, tokenizer):
    """Wherever a certain token is the likeliest, in the plain pass or in the recursion."""
    sound = decode(tiny_model().double(), tokenizer)
    drawn = [token for pool in sound for token in pool[0].tokens]
    trigger = max(set(drawn), key=lambda token: (drawn.count(token), token))

    def break_rows(module, args, logits):
        hit = logits.argmax(-1, keepdim=True) == trigger
        if fault == math.inf:
            hit = hit & (torch.arange(VOCABULARY) == 7)
        return logits.masked_fill(hit, fault)

    model = tiny_model().double()
    decoder = PoolDecoder(model, tokenizer, **GRID)  # checked while it is sound
    model.lm_head.register_forward_hook(break_rows)
    broken = decoder.generate(PROMPTS, max_new_tokens=10, progress=False)
    pairs = [pair for pools in zip(sound, broken, strict=True) for pair in zip(*pools, strict=True)]
    failed = [pair for pair in pairs if pair[1].finish_reason == "error"]
    assert 0 < len(failed) < len(pairs)
    for before, after in failed:
        assert after.tokens == before.tokens[: len(after.tokens)]
        assert len(after.tokens) < len(before.tokens)
    for before, after in pairs:
        assert after.finish_reason == "error" or after.tokens == before.tokens


def test_what_a_broken_row_leaves_in_its_slot_harms_no_later_row(tokenizer):
    """The embedding of Z is no number, so all keys and values after a Z are none either."""
    model = tiny_model().double()
    decoder = PoolDecoder(model, tokenizer, **GRID, max_rows=24)
    [trigger] = tokenizer("Z").input_ids
    model.get_input_embeddings().weight.data[trigger] = math.nan
    long = "A prompt that is longer than all the others, so that shorter rows are read beyond their ends"
    broken = ["Z and a prompt that is longer than the short ones"] * 3
    alone = decoder.generate([long, *PROMPTS], max_new_tokens=10, progress=False)
    assert all(any(rollout.finish_reason != "error" for rollout in pool) for pool in alone)
    together = decoder.generate([long, *broken, *PROMPTS], max_new_tokens=10, progress=False)
    assert cells([together[0], *together[4:]]) == cells(alone)
    for pool in together[1:4]:
        assert {(rollout.tokens, rollout.finish_reason) for rollout in pool} == {((), "error")}


def test_a_tokenizer_without_end_or_padding_token(tokenizer):
    bare = byte_tokenizer()
    bare.eos_token = bare.pad_token = None
    model = tiny_model()
    found = cells(decode(model, bare))
    assert found == cells(decode(model, tokenizer))  # the generation config names the end, too
    model.generation_config.eos_token_id = None
    assert {end for pool in decode(model, bare) for end in [r.finish_reason for r in pool]} == {"length"}


def test_short_and_long_prompts(tokenizer):
    model = tiny_model().double()
    together = decode(model, tokenizer, ["a", "b" * 200, *PROMPTS])
    assert cells(together[:1]) == cells(decode(model, tokenizer, ["a"]))
    assert cells(together[2:]) == cells(decode(model, tokenizer))
    assert together[0].cost.prompt_tokens == 1
    with pytest.raises(ValueError, match="prompt: expected at least one token, got an empty prompt"):
        decode(model, tokenizer, ["So", ""])
    with pytest.raises(ValueError, match="prompt: 100000 tokens leave no room in the context of 256 tokens"):
        decode(model, tokenizer, ["So", "x" * 100_000])
