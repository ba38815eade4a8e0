"""Laws of exactness: plain decoding is transformers' own, recursion is the slow reference's."""

from __future__ import annotations

import math

import pytest
import torch
from reference_decoder import ReferenceDecoder
from tiny_models import CONFIGS, DEPTH, tiny_model

from lm_eval_eglr.decoding import PoolDecoder

PROMPTS = ["Tom has 3 apples and buys 4 more, so", "What is 12 * 7?"]
TOKENS = 12


def transformers_greedy(model, tokenizer, prompt, count=TOKENS):
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    return tuple(model.generate(ids, max_new_tokens=count, do_sample=False)[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("family", CONFIGS)
def test_span_0_at_temperature_0_is_transformers_greedy(family, tokenizer):
    model = tiny_model(family)
    decoder = PoolDecoder(model, tokenizer, spans="0:2", temperatures="0:1", entropy_threshold=0.1)
    pools = decoder.generate(PROMPTS, max_new_tokens=TOKENS, progress=False)
    for pool, prompt in zip(pools, PROMPTS, strict=True):
        assert pool[0].tokens == transformers_greedy(model, tokenizer, prompt)
        assert len(set(pool[0].tokens)) > 1, "a model that repeats one token proves nothing"


@pytest.mark.parametrize(
    "nothing", [{"max_recursions": 0}, {"entropy_threshold": math.inf}, {"strength": 0.0}], ids=str
)
def test_a_recursion_that_changes_nothing_is_transformers_greedy(nothing, llama, tokenizer):
    options = {"entropy_threshold": 0.0, **nothing}
    decoder = PoolDecoder(llama, tokenizer, spans=[1, 2, DEPTH], temperatures="0", **options)
    for pool, prompt in zip(
        decoder.generate(PROMPTS, max_new_tokens=TOKENS, progress=False), PROMPTS, strict=True
    ):
        for rollout in pool:
            assert rollout.tokens == transformers_greedy(llama, tokenizer, prompt)


@pytest.mark.parametrize("family", ["llama", "gemma2-softcap", "gpt2", "qwen3-moe"])
@pytest.mark.parametrize("update", ["anchored", "damped", "replace"])
def test_recursion_is_the_slow_reference(update, family, tokenizer):
    model = tiny_model(family)
    options = {"update": update, "strength": 0.3, "max_recursions": 3, "tolerance": 0.02}
    tau = 1.0
    spans = range(1, DEPTH + 1)
    decoder = PoolDecoder(
        model, tokenizer, spans=list(spans), temperatures="0", entropy_threshold=tau, **options
    )
    pool = decoder.generate(PROMPTS[0], max_new_tokens=8, progress=False)[0]
    prompt = tokenizer(PROMPTS[0]).input_ids
    plain = transformers_greedy(model, tokenizer, PROMPTS[0], 8)
    for span, rollout in zip(spans, pool, strict=True):
        tokens, iterations = ReferenceDecoder(model, span, **options).greedy(prompt, 8, tau)
        assert list(rollout.tokens) == tokens
        assert rollout.telemetry.recursions == sum(iterations)
        assert rollout.telemetry.gated_tokens == sum(count > 0 for count in iterations)
        assert rollout.telemetry.recursion_layer_tokens == span * sum(iterations)
    assert any(rollout.tokens != plain for rollout in pool), "a recursion without effect proves nothing"


@pytest.mark.parametrize("family", sorted(set(CONFIGS) - {"llama", "gemma2-softcap", "gpt2", "qwen3-moe"}))
def test_recursion_is_the_slow_reference_in_every_family(family, tokenizer):
    model = tiny_model(family)
    options = {"strength": 0.3, "max_recursions": 3, "tolerance": 0.02}
    decoder = PoolDecoder(model, tokenizer, spans="2", temperatures="0", entropy_threshold=0.5, **options)
    rollout = decoder.generate(PROMPTS[0], max_new_tokens=8, progress=False)[0][0]
    prompt = tokenizer(PROMPTS[0]).input_ids
    tokens, iterations = ReferenceDecoder(model, 2, **options).greedy(prompt, 8, 0.5)
    assert list(rollout.tokens) == tokens
    assert rollout.telemetry.recursions == sum(iterations) > 0


EXITS = [("none", None), ("kl", 0.02), ("entropy", 0.05), ("latent", 0.1), ("latent", 0.0), ("kl", 1e9)]
BOTH_UPDATES = EXITS[1:4]  # the others end every recursion alike, whatever its update


@pytest.mark.parametrize(
    ("update", "rule", "threshold"),
    [
        *(("anchored", *each) for each in EXITS),
        *(
            pytest.param("damped", *each, marks=() if each in BOTH_UPDATES else pytest.mark.slow)
            for each in EXITS
        ),
    ],
)
def test_a_recursion_ends_by_the_rule_of_exit_of_the_slow_reference(rule, threshold, update, tokenizer):
    model = tiny_model("llama").double()
    options = {"update": update, "strength": 0.5, "max_recursions": 6, "exit": rule}
    if threshold is not None:
        options["exit_threshold"] = threshold
    spans = [1, DEPTH]
    decoder = PoolDecoder(
        model, tokenizer, spans=spans, temperatures="0", entropy_threshold=1.0, trace=True, **options
    )
    pool = decoder.generate(PROMPTS[0], max_new_tokens=8, progress=False)[0]
    made = set()
    for span, rollout in zip(spans, pool, strict=True):
        reference = ReferenceDecoder(model, span, **options)
        tokens, iterations = reference.greedy(tokenizer(PROMPTS[0]).input_ids, 8, 1.0)
        work = rollout.telemetry
        assert list(rollout.tokens) == tokens
        assert list(work.token_iterations) == iterations
        moved = [d for d, count in zip(work.token_divergences, iterations, strict=True) if count]
        assert work.converged_tokens == sum(distance < (threshold or 0) for distance in moved)
        assert any(moved) == (rule != "none")
        again = decoder.logprobs(PROMPTS[0], rollout)
        assert again == pytest.approx(work.token_logprobs, abs=1e-9)
        made |= set(iterations) - {0}
    # Whatever ends early ends at different iterations; what never does makes all, what always does one.
    assert len(made) > 1 if threshold in (0.02, 0.05, 0.1) else made == ({1} if threshold else {6})


def test_the_tolerance_is_the_threshold_of_kl(llama, tokenizer):
    def rollouts(**options):
        decoder = PoolDecoder(
            llama, tokenizer, spans="0:2", temperatures="0:1", entropy_threshold=0.5, **options
        )
        pool = decoder.generate(PROMPTS[0], max_new_tokens=TOKENS, progress=False)[0]
        return [(rollout.tokens, rollout.telemetry.recursions, rollout.telemetry.ties) for rollout in pool]

    assert rollouts() == rollouts(exit="kl") == rollouts(tolerance=1e-3)
    once = rollouts(tolerance=math.inf)
    assert [made for _, made, _ in once] == [made for _, made, _ in rollouts(max_recursions=1)]
    assert not any(ties for *_, ties in once), "no divergence is near to an infinite tolerance"
    looser = rollouts(tolerance=0.1)
    assert looser == rollouts(exit="kl", exit_threshold=0.1) != rollouts()


def test_the_cell_that_is_recursed_does_not_disturb_the_plain_one(llama, tokenizer):
    """One row serves spans 0 to 4 at once; the plain cell must not notice."""
    decoder = PoolDecoder(llama, tokenizer, spans="0:1:2:3:4", temperatures="0", entropy_threshold=0.0)
    pool = decoder.generate(PROMPTS[0], max_new_tokens=TOKENS, progress=False)[0]
    assert pool[0].tokens == transformers_greedy(llama, tokenizer, PROMPTS[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_keep_fp32_distributions(dtype, tokenizer):
    """Log-probabilities and entropies are no numbers of half precision, as if they were computed in it."""
    model = tiny_model("llama").to(dtype)
    decoder = PoolDecoder(
        model, tokenizer, spans="0:2", temperatures="0:1", entropy_threshold=0.1, trace=True
    )
    pool = decoder.generate(PROMPTS[0], max_new_tokens=8, progress=False)[0]
    for rollout in pool:
        work = rollout.telemetry
        for values in (work.token_logprobs, work.token_entropies, work.token_refined_entropies):
            found = torch.tensor(values, dtype=torch.float64)
            assert (found.to(dtype).double() != found).double().mean() > 0.5
        assert 0 <= work.mean_entropy <= math.log(257)
        assert work.mean_logprob <= 0
