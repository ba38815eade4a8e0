"""PoolDecoder as users of Python call it: loading, chat messages, stop strings, and what is refused."""

from __future__ import annotations

import pytest
from eglr_selectors.pool import Cell, Rollout
from tiny_models import byte_tokenizer, tiny_model

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
