"""Ties: what the order of sums decides is counted, and nothing else depends on it."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import tiny_model

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.numerics import statistics
from lm_eval_eglr.decoding.sampling import draw_tokens, warpers

GRID = {"spans": "0:1:3", "temperatures": "0:0.8x2", "entropy_threshold": 1.0}
PROMPTS = [f"Problem {number}: what is {number} + {number}?" for number in range(6)]


def rollouts(decoder, **options):
    pools = decoder.generate(PROMPTS, max_new_tokens=12, progress=False)
    return [rollout for pool in pools for rollout in pool]


@pytest.mark.parametrize(("dtype", "exact"), [("bfloat16", "float32"), ("float32", "float64")])
def test_rollouts_without_ties_do_not_depend_on_rounding(dtype, exact, tokenizer):
    """The same weights with more bits stand for any other order of the sums."""
    model = tiny_model(initializer_range=0.2).to(getattr(torch, dtype))
    found = rollouts(PoolDecoder(model, tokenizer, **GRID))
    expected = rollouts(PoolDecoder(model.to(getattr(torch, exact)), tokenizer, **GRID))
    differing = [a for a, b in zip(found, expected, strict=True) if a.tokens != b.tokens]
    assert all(rollout.telemetry.ties for rollout in differing)
    if dtype == "bfloat16":
        assert differing
    else:
        assert sum(not rollout.telemetry.ties for rollout in found) > len(found) / 2


def test_numbers_of_threads_differ_only_at_ties(tokenizer):
    model = tiny_model(hidden_size=256, intermediate_size=1024, initializer_range=0.1)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(rollouts(PoolDecoder(model, tokenizer, **GRID)))
    finally:
        torch.set_num_threads(before)
    one, two = found
    assert all(a.telemetry.ties for a, b in zip(one, two, strict=True) if a.tokens != b.tokens)
    assert sum(not rollout.telemetry.ties for rollout in one) > len(one) / 2  # of which this says something


def test_equal_logits_are_a_tie_at_temperature_0(tokenizer):
    model = tiny_model(tie_word_embeddings=False)
    decoder = PoolDecoder(model, tokenizer, spans="0", temperatures="0")
    [pool] = decoder.generate("One", max_new_tokens=8, progress=False)
    assert pool[0].telemetry.ties == 0
    first = pool[0].tokens[0]
    model.lm_head.weight.data[(first + 1) % 256] = model.lm_head.weight.data[first]
    [pool] = decoder.generate("One", max_new_tokens=1, progress=False)
    assert pool[0].telemetry.ties == 1


def test_an_entropy_on_the_threshold_is_a_tie(llama, tokenizer):
    def first(**options):
        decoder = PoolDecoder(llama, tokenizer, spans="2", temperatures="0", trace=True, **options)
        return decoder.generate("One", max_new_tokens=1, progress=False)[0][0].telemetry

    (entropy,) = first(entropy_threshold=9.0).token_entropies
    assert [first(entropy_threshold=entropy + step).ties for step in (-0.1, 0.0, 0.1)] == [0, 1, 0]


def test_margins_say_how_far_log_probabilities_would_have_to_move():
    logprobs = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]], dtype=torch.float64).log()
    uniforms = torch.tensor([[0.1, 0.4999], [0.75, 0.9]], dtype=torch.float64)
    tokens, margins, _ = draw_tokens(logprobs, torch.tensor([1.0, 1.0]), uniforms, warpers((0, 1.0, 0.0)))
    assert tokens.tolist() == [[0, 0], [2, 2]]
    # 0.1 is near the lower end of the unit interval, which does not move.
    assert margins.flatten().tolist() == pytest.approx([math.inf, 0.0001 / (2 * 0.25), 0.0, math.inf])
    # At the margin a shift of the first token's logit, against the others', does change the draw.
    for step, token in ((0.9, 0), (1.1, 1)):
        shift = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64) * margins[0, 1] * step
        moved = (logprobs[:1] + shift).log_softmax(-1)
        found, _, _ = draw_tokens(moved, torch.tensor([1.0]), uniforms[:1, 1:], warpers((0, 1.0, 0.0)))
        assert found.item() == token
    assert statistics(logprobs.new_tensor([[-1.0, -1.1], [-1.0, -1.001]]))[3].tolist() == pytest.approx(
        [0.1, 0.001]
    )


def test_in_half_precision_the_marked_share_is_near_that_which_rounding_decides(tokenizer):
    """The same weights with more bits stand for another order of the sums, as above."""
    prompts = [f"Problem {number}: what is {number} + {number}?" for number in range(24)]
    found, roundings = [], []
    for each in (tiny_model().bfloat16(), tiny_model().bfloat16().float()):
        decoder = PoolDecoder(each, tokenizer, spans="0", temperatures="0:0.8x3", max_rows=96)
        pools = decoder.generate(prompts, max_new_tokens=12, progress=False)
        found.append([rollout for pool in pools for rollout in pool])
        roundings.append(decoder.engine.rounding)
    assert roundings[1] == 1e-4 < roundings[0] < 0.1
    flips = compared = 0
    for one, other in zip(*found, strict=True):
        same = [a == b for a, b in zip(one.tokens, other.tokens, strict=False)]
        first = same.index(False) if False in same else len(same)
        flips += first < len(same)
        compared += min(first + 1, len(same))
    marked = sum(r.telemetry.ties for r in found[0]) / sum(len(r.tokens) for r in found[0])
    print(f"marked {marked:.3f} of the tokens, {flips / compared:.3f} of them came out otherwise")
    assert flips / compared / 3 < marked < 3 * flips / compared
