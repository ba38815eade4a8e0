"""Which tokens the recursion changed: those that the same draw from the plain distribution would not give."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model

from lm_eval_eglr.decoding import PoolDecoder

PROMPTS = ["One apple", "What is 12 * 7? Think and then"]
GRID = {"spans": "0:1:3", "temperatures": "0:0.8x2:1.3", "entropy_threshold": 1.0, "trace": True}


@pytest.fixture(scope="module")
def llama():
    """In fp64, where no draw falls between two roundings."""
    return tiny_model().double()


def decode(model, tokenizer, **options):
    pools = PoolDecoder(model, tokenizer, **{**GRID, **options}).generate(
        PROMPTS, max_new_tokens=16, progress=False
    )
    return [rollout for pool in pools for rollout in pool]


@pytest.mark.parametrize("noise", ["shared", "independent"])
def test_a_recursion_that_changes_nothing_changes_no_token(noise, llama, tokenizer):
    for rollout in decode(llama, tokenizer, strength=0.0, noise=noise):
        assert (rollout.telemetry.gated_tokens > 0) == (rollout.cell.span > 0)
        assert rollout.telemetry.changed_tokens == sum(rollout.telemetry.token_changes) == 0


def test_at_temperature_0_a_change_is_another_token_than_the_likeliest(llama, tokenizer):
    changed = 0
    pools = PoolDecoder(llama, tokenizer, **{**GRID, "temperatures": "0"}).generate(
        PROMPTS, max_new_tokens=16, progress=False
    )
    for prompt, pool in zip(PROMPTS, pools, strict=True):
        ids = tokenizer(prompt).input_ids
        for rollout in pool:
            with torch.no_grad():
                logits = llama(torch.tensor([[*ids, *rollout.tokens]])).logits[0, len(ids) - 1 : -1]
            otherwise = [int(a != b) for a, b in zip(logits.argmax(-1), rollout.tokens, strict=True)]
            assert list(rollout.telemetry.token_changes) == otherwise
            assert rollout.telemetry.changed_tokens == sum(otherwise)
            changed += sum(otherwise) * (rollout.cell.span > 0)
    assert changed, "a recursion that changes nothing proves nothing"


def test_under_shared_draws_the_first_change_is_where_a_rollout_parts_from_the_plain_one(llama, tokenizer):
    plain, parted = {}, 0
    found = decode(llama, tokenizer, noise="shared", top_p=0.9)
    for number, rollout in enumerate(found):
        prompt = number // (len(found) // len(PROMPTS))
        where = (prompt, rollout.cell.temperature, rollout.cell.sample)
        if not rollout.cell.span:
            plain[where] = rollout.tokens
            assert not any(rollout.telemetry.token_changes)
            continue
        same = [int(a == b) for a, b in zip(rollout.tokens, plain[where], strict=False)]
        first = same.index(0) if 0 in same else len(same)
        changes = rollout.telemetry.token_changes
        assert not any(changes[:first])
        assert first == len(same) or changes[first]
        parted += first < len(same) and rollout.cell.temperature > 0
    assert parted, "a recursion that changes nothing proves nothing"


def test_changes_do_not_depend_on_sharing_batch_size_or_trace(llama, tokenizer):
    expected = decode(llama, tokenizer)
    for changes in ({"share": False}, {"max_rows": 17}):
        found = decode(llama, tokenizer, **changes)
        assert [r.telemetry.token_changes for r in found] == [r.telemetry.token_changes for r in expected]
    for rollout, bare in zip(expected, decode(llama, tokenizer, trace=False), strict=True):
        assert bare.telemetry.token_changes == ()
        assert bare.telemetry.changed_tokens == sum(rollout.telemetry.token_changes)
        assert bare.telemetry.changed_tokens <= rollout.telemetry.gated_tokens
    assert any(any(rollout.telemetry.token_changes) for rollout in expected)
