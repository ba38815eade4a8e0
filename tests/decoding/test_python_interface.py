"""PoolDecoder as users of Python call it: loading, chat messages, stop strings, and what is refused."""

from __future__ import annotations

import warnings

import pytest
import torch
from eglr_selectors.pool import Cell, Rollout
from tiny_models import byte_tokenizer, tiny_model
from transformers import GenerationConfig

from lm_eval_eglr.decoding import PoolDecoder

TEMPLATE = """
{%- for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}
{%- if add_generation_prompt %}<a>{% endif %}"""
MESSAGES = [{"role": "u", "content": "Tom has 3"}]
GRID = {"spans": "0:2", "temperatures": "0:0.8", "entropy_threshold": 1.0}


def tokens(pools):
    return [[rollout.tokens for rollout in pool] for pool in pools]


def decode(decoder, prompts, **changes):
    return decoder.generate(prompts, **{"max_new_tokens": 6, "progress": False, **changes})


@pytest.fixture(scope="module")
def decoder():
    return PoolDecoder(tiny_model(), byte_tokenizer(chat_template=TEMPLATE), **GRID)


def test_a_folder_is_loaded_with_its_tokenizer(decoder, tmp_path):
    decoder.stack.model.save_pretrained(tmp_path)
    decoder.tokenizer.save_pretrained(tmp_path)
    loaded = PoolDecoder.from_pretrained(str(tmp_path), **GRID)
    assert tokens(decode(loaded, ["Tom has"])) == tokens(decode(decoder, ["Tom has"]))
    half = PoolDecoder.from_pretrained(str(tmp_path), model_kwargs={"dtype": "bfloat16"}, **GRID)
    assert str(half.stack.model.dtype) == "torch.bfloat16"


def test_a_wrong_option_is_said_before_a_model_is_loaded():
    with pytest.raises(ValueError, match=r"strengh=0.1: unknown option"):
        PoolDecoder.from_pretrained("no/such-model", strengh=0.1)


def test_chat_messages_are_the_text_of_the_template(decoder):
    text = "<u>Tom has 3<a>"
    (one,) = decode(decoder, MESSAGES)
    assert one.prompt == text
    both = decode(decoder, [MESSAGES, [{"role": "u", "content": "Ann"}]])
    assert [pool.prompt for pool in both] == [text, "<u>Ann<a>"]
    assert tokens([one]) == tokens(both[:1]) == tokens(decode(decoder, text))


def test_a_stop_string_may_be_given_alone(decoder):
    (free,) = decode(decoder, "Tom has", max_new_tokens=12)
    character = free[0].text[3]
    (alone,) = decode(decoder, "Tom has", max_new_tokens=12, until=character)
    assert tokens([alone]) == tokens(decode(decoder, "Tom has", max_new_tokens=12, until=[character]))
    assert character not in alone[0].text


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        (
            {"strategy": "adaptive_grid"},
            {"cells": [Cell(0, 0.0)]},
            "cells: only strategy='grid' decodes given",
        ),
        ({}, {"references": ["1", "2"]}, "references: 2 for 1 prompts"),
        ({}, {"until": [7]}, "until=7: expected strings"),
        ({"strategy": "eager", "budget": "labels"}, {}, "budget='labels': expected a reference for every"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(options, arguments, message, llama, tokenizer):
    decoder = PoolDecoder(llama, tokenizer, **options)
    with pytest.raises(ValueError, match=message):
        decode(decoder, ["Tom has"], **arguments)


def test_log_probabilities_need_a_prompt_and_tokens(decoder):
    (pool,) = decode(decoder, "Tom has")
    with pytest.raises(ValueError, match="prompt: expected at least one token"):
        decoder.logprobs("", pool[0])
    with pytest.raises(ValueError, match="rollout: expected token ids, got a rollout of text alone"):
        decoder.logprobs("Tom has", Rollout("4", Cell(0, 0.0), "stop"))


@pytest.mark.parametrize("options", [{}, {"top_p": 0.8, "top_k": 40}, {"min_p": 0.05}], ids=str)
def test_recorded_sampling_log_probabilities_are_those_of_the_distribution_drawn_from(options):
    """Of the plain cells, by transformers' own truncation of the model's own logits."""
    model = tiny_model().double()
    decoder = PoolDecoder(model, byte_tokenizer(), spans="0:2", temperatures="0:0.7", trace=True, **options)
    (pool,) = decode(decoder, "Tom has 3", max_new_tokens=12)
    greedy, sampled, *recursed = pool
    assert set(greedy.telemetry.token_sampling_logprobs) == {0.0}
    prompt = decoder.encode("Tom has 3")
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *sampled.tokens]])).logits[0, len(prompt) - 1 : -1]
    config = GenerationConfig(do_sample=True, temperature=0.7, **{"top_k": 0, **options})
    processors = model._get_logits_processor(config, input_ids_seq_length=1)
    wanted = processors(torch.zeros(len(logits), 1, dtype=torch.long), logits).log_softmax(-1)
    wanted = wanted[torch.arange(len(logits)), torch.tensor(sampled.tokens)]
    assert sampled.telemetry.token_sampling_logprobs == pytest.approx(wanted.tolist(), abs=1e-9)
    assert sampled.telemetry.token_sampling_logprobs != sampled.telemetry.token_logprobs
    for rollout in recursed:
        assert len(rollout.telemetry.token_sampling_logprobs) == len(rollout.tokens)


def test_a_recursed_cell_at_temperature_1_draws_from_the_recursed_distribution():
    decoder = PoolDecoder(
        tiny_model().double(),
        byte_tokenizer(),
        spans="2",
        temperatures="1",
        entropy_threshold=0.5,
        trace=True,
    )
    (pool,) = decode(decoder, "Tom has 3", max_new_tokens=12)
    telemetry = pool[0].telemetry
    assert telemetry.gated_tokens
    assert telemetry.token_sampling_logprobs == pytest.approx(telemetry.token_logprobs, abs=1e-9)


def test_a_call_may_have_a_seed_of_its_own(decoder):
    first, again, other = (decode(decoder, "Tom has", seed=seed) for seed in (5, 5, 6))
    assert tokens(first) == tokens(again)
    assert tokens(first) != tokens(other)
    seeded = PoolDecoder(decoder.stack.model, decoder.tokenizer, seed=5, **GRID)
    assert tokens(decode(seeded, "Tom has")) == tokens(first)
    with pytest.raises(ValueError, match="seed='x': expected an integer >= 0"):
        decode(decoder, "Tom has", seed="x")


def test_a_model_in_training_decodes_as_in_evaluation_and_stays_in_training():
    model = tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5)
    expected = tokens(decode(PoolDecoder(model, byte_tokenizer(), **GRID), "Tom has"))
    model.train()
    model.transformer.h[1].eval()  # somebody has frozen a layer's dropout
    model.gradient_checkpointing_enable()
    before = {name: module.training for name, module in model.named_modules()}
    decoder = PoolDecoder(model, byte_tokenizer(), **GRID)
    assert tokens(decode(decoder, "Tom has")) == expected
    assert {name: module.training for name, module in model.named_modules()} == before


def test_wrapped_models_are_decoded_with_their_adapters():
    peft = pytest.importorskip("peft")
    expected = tokens(decode(PoolDecoder(tiny_model(), byte_tokenizer(), **GRID), "Tom has"))
    adapted = peft.get_peft_model(tiny_model(), peft.LoraConfig(target_modules=["q_proj", "v_proj"]))
    decoder = PoolDecoder(adapted, byte_tokenizer(), **GRID)
    assert tokens(decode(decoder, "Tom has")) == expected  # an adapter begins as nothing
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(0))
    changed = tokens(decode(decoder, "Tom has"))
    assert changed != expected
    merged = adapted.merge_and_unload()
    assert tokens(decode(PoolDecoder(merged, byte_tokenizer(), **GRID), "Tom has")) == changed
    with pytest.raises(ValueError, match="model=object: expected a causal LM of transformers"):
        PoolDecoder(object(), byte_tokenizer())


def test_token_ids_of_prompts_are_public(decoder):
    assert decoder.encode("Tom") == byte_tokenizer()("Tom").input_ids
    assert decoder.encode(MESSAGES) == byte_tokenizer()("<u>Tom has 3<a>").input_ids


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_nothing_is_passed_to_a_model_that_transformers_is_about_to_remove(family, tokenizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        decoder = PoolDecoder(tiny_model(family), tokenizer, spans="0:1", temperatures="0:1")
        (pool,) = decoder.generate(["One apple"], max_new_tokens=4, progress=False)
    assert len(pool) == 4


def test_a_model_that_keeps_what_it_computed_trains_after_decoding(tokenizer):
    """Remote code keeps cosines of positions that it has met, which training saves for its backward pass."""
    model = tiny_model()
    rotary = model.get_decoder().rotary_emb
    kept, compute = {}, rotary.forward

    def keeping(x, position_ids):
        if "cosines" not in kept:
            everything = torch.arange(256, device=x.device)[None]
            kept["cosines"] = compute(x[:1], position_ids=everything)
        if torch.is_grad_enabled():  # from the first position on
            return tuple(each[:, : position_ids.shape[1]] for each in kept["cosines"])
        return tuple(each[0][position_ids] for each in kept["cosines"])

    rotary.forward = keeping
    decoder = PoolDecoder(model, tokenizer, spans="0:2", temperatures="0:1")
    kept.clear()  # what the check at start has left
    decoder.generate("Tom", max_new_tokens=4, progress=False)
    model.train()
    model(input_ids=torch.tensor([[65, 66, 67]]), labels=torch.tensor([[65, 66, 67]])).loss.backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0
