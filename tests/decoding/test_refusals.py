"""Bad options and models: one clear line each, before anything is decoded."""

from __future__ import annotations

import math

import pytest
import torch
from eglr_selectors import Cell, Rollout
from tiny_models import DEPTH, byte_tokenizer, tiny_model
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    MambaConfig,
    Qwen3NextConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from lm_eval_eglr.decoding import PoolDecoder, UnsupportedModelError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spans": "0:5"}, r"spans: '5' is deeper than the model, which has 4 layers"),
        ({"spans": "0:200%"}, r"spans: '200%' is deeper"),
        ({"spans": "0:two"}, r"spans: 'two' is neither a number of layers nor a percentage"),
        ({"spans": "1:1"}, r"spans='1:1': span 1 occurs twice"),
        ({"spans": "25%:1"}, r"span 1 occurs twice at depth 4"),
        ({"spans": -1}, r"spans: '-1' is neither"),
        ({"spans": ""}, r"spans='': expected values separated by colons"),
        ({"spans": {"0": 1}}, r"spans=.*: expected values separated by colons"),
        ({"temperatures": "hot"}, r"temperatures: 'hot' is neither a number >= 0"),
        ({"temperatures": "0:-0.5"}, r"temperatures: '-0.5' is neither a number >= 0"),
        ({"temperatures": "nan"}, r"temperatures: 'nan'"),
        ({"temperatures": "0.7x0"}, r"temperatures: '0.7x0'"),
        ({"temperatures": "0:0"}, r"0 occurs twice"),
        ({"entropy_threshold": -1}, r"entropy_threshold=-1: expected a number >= 0"),
        ({"entropy_threshold": math.nan}, r"entropy_threshold=nan"),
        ({"max_recursions": 1.5}, r"max_recursions=1.5: expected an integer >= 0"),
        ({"max_recursions": True}, r"max_recursions=True"),
        ({"max_recursions": 10**9}, r"max_recursions=1000000000: expected an integer >= 0 and <= 1024"),
        ({"temperatures": "0:0.7x1000000000"}, r"temperatures: '0.7x1000000000': expected at most 65536"),
        ({"temperatures": "0.7x65536"}, r"3 levels of depth × 65536 temperatures: expected at most 65536"),
        ({"strategy": "sample", "n": 10**9}, r"n=1000000000: expected an integer >= 1 and <= 65536"),
        ({"strategy": "eager", "n": 10**9}, r"n=1000000000: expected an integer >= 1 and <= 65536"),
        ({"strategy": "eager", "max_rollouts": 10**9}, r"max_rollouts=1000000000: expected an integer"),
        ({"tolerance": -1e-3}, r"tolerance=-0.001"),
        ({"update": "naive"}, r"update='naive': expected one of anchored, damped, replace"),
        ({"strength": 1.2}, r"strength=1.2: expected a number >= 0 and <= 1"),
        ({"kv": "drop"}, r"kv='drop': expected keep"),
        ({"kv": "overwrite"}, r"kv='overwrite': expected keep"),
        ({"max_length": 0}, r"max_length=0: expected an integer >= 1"),
        ({"noise": "white"}, r"noise='white': expected one of shared, independent"),
        ({"top_p": 0}, r"top_p=0: expected a number > 0 and <= 1"),
        ({"top_k": -1}, r"top_k=-1"),
        ({"min_p": 2}, r"min_p=2"),
        ({"seed": "x"}, r"seed='x': expected an integer >= 0"),
        ({"max_rows": 0}, r"max_rows=0: expected an integer >= 1"),
        ({"strengh": 0.1}, r"strengh=0.1: unknown option; expected one of .*strength"),
    ],
    ids=str,
)
def test_bad_options_name_themselves_and_what_is_allowed(options, message, llama, tokenizer):
    with pytest.raises(ValueError, match=message) as caught:
        PoolDecoder(llama, tokenizer, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([], r"cells=\[\]: expected at least one"),
        ([Cell(5, 0.0)], "cells: L5/T0#0 is deeper than the model, which has 4 layers"),
        ([Cell(2, 0.0, axis="R")], "cells: R2/T0#0 is not on the model's depth axis; expected L"),
        ([Cell(2, None)], r"cells: L2/T\?#0 has no temperature; expected a number >= 0"),
    ],
    ids=str,
)
def test_cells_that_the_model_has_not_are_refused(cells, message, llama, tokenizer):
    with pytest.raises(ValueError, match=message):
        PoolDecoder(llama, tokenizer).generate("x", cells=cells, progress=False)


def test_a_rollout_of_a_level_that_the_model_has_not_cannot_be_rescored(llama, tokenizer):
    rollout = Rollout("a", Cell(5, 0.0), "stop", (1, 2))
    with pytest.raises(ValueError, match="rollout: L5/T0#0 is deeper than the model"):
        PoolDecoder(llama, tokenizer).logprobs("x", rollout)


@pytest.mark.parametrize("limit", [0, -1, 2.5, "8"])
def test_a_bad_length_limit_is_refused(limit, llama, tokenizer):
    with pytest.raises(ValueError, match=r"max_new_tokens=.*expected an integer >= 1"):
        PoolDecoder(llama, tokenizer).generate("x", max_new_tokens=limit, progress=False)


@pytest.mark.parametrize(
    ("spans", "depth_4"),
    [("0:25%:50%", (0, 1, 2)), ([0, 4], (0, 4)), (3, (3,)), ("0%:100%", (0, 4)), (None, (0, 1, 2))],
)
def test_spans_as_users_write_them(spans, depth_4, llama, tokenizer):
    decoder = PoolDecoder(llama, tokenizer, spans=spans, temperatures="0")
    assert tuple(cell.span for cell in decoder.cells) == depth_4
    assert decoder.stack.depth == DEPTH


@pytest.mark.parametrize("temperatures", ["0:0.7:0.7", "0:0.7x2", [0, 0.7, 0.7], ["0", "0.7x2"]])
def test_temperatures_as_users_write_them(temperatures, llama, tokenizer):
    cells = PoolDecoder(llama, tokenizer, spans="0", temperatures=temperatures).cells
    assert [(cell.temperature, cell.sample) for cell in cells] == [(0, 0), (0.7, 0), (0.7, 1)]


def small(config_class, **sizes):
    return AutoModelForCausalLM.from_config(config_class(vocab_size=257, hidden_size=32, **sizes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: T5ForConditionalGeneration(
                T5Config(vocab_size=257, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
            ),
            "T5ForConditionalGeneration is an encoder-decoder model",
        ),
        (
            lambda: small(MambaConfig, num_hidden_layers=2, state_size=4),
            "MambaForCausalLM has layers of type linear_attention",
        ),
        (
            lambda: small(
                Qwen3NextConfig,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=8,
                num_experts=2,
                num_experts_per_tok=1,
                moe_intermediate_size=16,
                shared_expert_intermediate_size=16,
                linear_num_value_heads=2,
                linear_num_key_heads=2,
                linear_key_head_dim=8,
                linear_value_head_dim=8,
            ),
            "Qwen3NextForCausalLM has layers of type linear_attention",
        ),
        (lambda: small(BloomConfig, n_layer=2, n_head=4), "BloomForCausalLM"),
    ],
    ids=["encoder-decoder", "state-space", "linear attention", "attention of its own"],
)
def test_models_without_a_stack_of_attention_layers_are_refused_by_name(make, message):
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        PoolDecoder(make().eval(), byte_tokenizer())
    assert "\n" not in str(caught.value)


def test_a_row_of_nan_is_retired_alone():
    """A model that breaks on one byte: that prompt's rollouts end with an error, the others are untouched."""
    tokenizer, model = byte_tokenizer(), tiny_model()
    prompts = ["Tom has", "Tom !", "Ann has"]
    healthy = PoolDecoder(model, tokenizer, temperatures="0:1").generate(
        prompts, max_new_tokens=9, progress=False
    )
    broken = tokenizer("!").input_ids[0]
    decoder = PoolDecoder(tiny_model(), tokenizer, temperatures="0:1")
    with torch.no_grad():  # only now: a model that is broken from the start is refused
        decoder.stack.model.get_input_embeddings().weight[broken] = torch.nan
    pools = decoder.generate(prompts, max_new_tokens=9, progress=False)
    assert {(r.finish_reason, r.tokens) for r in pools[1]} == {("error", ())}
    for number in (0, 2):
        for sick, well in zip(pools[number], healthy[number], strict=True):
            if sick.finish_reason == "error":  # it drew the broken byte itself
                assert sick.tokens == well.tokens[: len(sick.tokens)]
                assert sick.tokens[-1] == broken
            else:
                assert sick.tokens == well.tokens
