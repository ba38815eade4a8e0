"""What is counted and recorded beside the tokens."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import DEPTH

from lm_eval_eglr.decoding import PoolDecoder

PROMPT = "What is 12 * 7? Think"
OPTIONS = {"spans": "0:1:3", "temperatures": "0:1", "entropy_threshold": 2.5, "trace": True}


@pytest.fixture(scope="module")
def decoder(llama, tokenizer):
    return PoolDecoder(llama, tokenizer, **OPTIONS)


@pytest.fixture(scope="module")
def pool(decoder):
    return decoder.generate(PROMPT, max_new_tokens=100, progress=False)[0]


def test_recorded_log_probabilities_are_those_of_teacher_forcing(decoder, pool):
    for rollout in pool:
        again = decoder.logprobs(PROMPT, rollout)
        assert torch.allclose(torch.tensor(again), torch.tensor(rollout.telemetry.token_logprobs), atol=1e-4)
        assert math.fsum(again) / len(again) == pytest.approx(rollout.telemetry.mean_logprob, abs=1e-4)


def test_plain_telemetry_is_that_of_the_model(llama, tokenizer, pool):
    rollout = pool[0]
    prompt = tokenizer(PROMPT).input_ids
    with torch.no_grad():
        logits = llama(torch.tensor([[*prompt, *rollout.tokens]])).logits[0, len(prompt) - 1 : -1]
    logp = logits.log_softmax(-1)
    entropies = -(logp.exp() * logp).sum(-1)
    telemetry = rollout.telemetry
    assert torch.allclose(torch.tensor(telemetry.token_entropies), entropies, atol=1e-4)
    assert telemetry.mean_entropy == pytest.approx(entropies.mean().item(), abs=1e-4)
    confidences = -logp.topk(20).values.mean(-1)
    assert torch.allclose(torch.tensor(telemetry.token_confidences), confidences, atol=1e-4)
    uniform = torch.full_like(logp, -math.log(logp.shape[-1]))
    certainty = (uniform.exp() * (uniform - logp)).sum(-1).mean()
    assert telemetry.mean_self_certainty == pytest.approx(certainty.item(), abs=1e-3)


def test_gate_and_counts_agree_with_the_trace(pool):
    for rollout in pool:
        telemetry, span = rollout.telemetry, rollout.cell.span
        columns = zip(
            telemetry.token_entropies,
            telemetry.token_refined_entropies,
            telemetry.token_iterations,
            telemetry.token_divergences,
            strict=True,
        )
        for entropy, refined, iterations, divergence in columns:
            assert (iterations > 0) == (span > 0 and entropy > OPTIONS["entropy_threshold"])
            assert iterations or (refined, divergence) == (entropy, 0.0)
            assert iterations <= 4
        assert telemetry.gated_tokens == sum(count > 0 for count in telemetry.token_iterations)
        assert telemetry.recursions == sum(telemetry.token_iterations)
        ended = [
            d
            for d, count in zip(telemetry.token_divergences, telemetry.token_iterations, strict=True)
            if count
        ]
        assert telemetry.converged_tokens == sum(d < 1e-3 for d in ended)
        assert telemetry.plain_layer_tokens == DEPTH * len(rollout.tokens)
        assert telemetry.head_evaluations == len(rollout.tokens) + telemetry.recursions
    assert any(rollout.telemetry.gated_tokens for rollout in pool), "nothing was gated"


def test_the_pool_pays_for_shared_work_once(pool):
    cost = pool.cost
    assert cost.tokens == sum(len(rollout.tokens) for rollout in pool)
    assert cost.rows < cost.tokens
    assert cost.plain_layer_tokens == DEPTH * (cost.prompt_tokens - 1 + cost.rows)
    assert cost.recursion_layer_tokens <= sum(r.telemetry.recursion_layer_tokens for r in pool)


def test_a_trace_is_kept_only_on_request(llama, tokenizer, pool):
    plain = PoolDecoder(llama, tokenizer, **{**OPTIONS, "trace": False})
    untraced = plain.generate(PROMPT, max_new_tokens=100, progress=False)[0]
    for with_trace, without in zip(pool, untraced, strict=True):
        assert without.telemetry.token_logprobs == ()
        assert without.telemetry.mean_logprob == with_trace.telemetry.mean_logprob
