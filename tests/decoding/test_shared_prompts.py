"""A long prompt is stored once for the rows of its pool, which attend to it together: it changes nothing."""

from __future__ import annotations

import pytest
import torch
from tiny_models import CONFIGS, tiny_model

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.model.runner import EagerRunner
from lm_eval_eglr.decoding.prefill import SHORTEST_SHARED
from lm_eval_eglr.decoding.stopping import StopRule

STORY = "Ann sells 3 of her 12 eggs a day and bakes with 4. "
PROMPTS = [4 * STORY, "Short", 4 * STORY + "How many are left?", 4 * STORY + "How many?"]
GRID = {"spans": "0:1:3", "temperatures": "0:0.8x2:1.3", "entropy_threshold": 1.0}
LENGTH = 12


@pytest.fixture(scope="module")
def llama():
    return tiny_model().double()  # as in test_invariance: who is read together changes rounding


def decode(model, tokenizer, prompts=PROMPTS, make=None, **options):
    decoder = PoolDecoder(model, tokenizer, **options)
    if make is not None:
        decoder.engine.make_runner = make
    pools = decoder.generate(prompts, max_new_tokens=LENGTH, progress=False)
    return [
        sorted((rollout.cell, rollout.tokens, rollout.finish_reason) for rollout in pool) for pool in pools
    ]


@pytest.fixture(scope="module")
def expected(llama, tokenizer):
    return decode(llama, tokenizer, **GRID, share=False)


def watching(seen):
    """A runner that notes how many rows and columns are held, and of how many prompts."""

    def make(stack, cache):
        run = EagerRunner(stack, cache)

        def watched(batch):
            output = run(batch)
            seen.append((batch.shares_prompts, cache.length, cache.prompts.rows, len(cache.prompts.keys)))
            return output

        return watched

    return make


def test_prompts_are_long_enough_to_be_shared(tokenizer):
    lengths = [len(tokenizer(prompt).input_ids) for prompt in PROMPTS]
    assert [length >= SHORTEST_SHARED for length in lengths] == [True, False, True, True]
    assert len(set(lengths)) == len(lengths)


@pytest.mark.parametrize("rows", [1, 7, 17, 256])
def test_rollouts_are_the_same(rows, llama, tokenizer, expected):
    seen: list[tuple] = []
    assert decode(llama, tokenizer, make=watching(seen), **GRID, max_rows=rows) == expected
    assert any(shares for shares, *_ in seen)


def test_rows_have_no_copy_of_a_long_prompt(llama, tokenizer):
    seen: list[tuple] = []
    decode(llama, tokenizer, PROMPTS[3:], watching(seen), **GRID)
    alone: list[tuple] = []
    decode(llama, tokenizer, PROMPTS[3:], watching(alone), **GRID, share=False)
    prompt = len(tokenizer(PROMPTS[3]).input_ids)
    assert (
        max(length for _, length, *_ in seen) <= LENGTH + 1 < prompt < max(length for _, length, *_ in alone)
    )
    assert not any(shares for shares, *_ in alone)


def test_a_single_rollout_has_its_prompt_for_itself(llama, tokenizer):
    seen: list[tuple] = []
    decode(llama, tokenizer, make=watching(seen), spans="0", temperatures="0")
    assert not any(shares for shares, *_ in seen)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_architecture(family, tokenizer):
    """Windows that end within the prompt, capped scores, sinks, and heads that share keys."""
    model = tiny_model(family)
    if family not in ("gpt-oss", "mixtral", "qwen3-moe"):  # whose experts cannot run in fp64
        model = model.double()
    options = {"spans": "0:2", "temperatures": "0:1x2", "entropy_threshold": 0.5, "trace": True}
    plain, shared = (
        PoolDecoder(model, tokenizer, **options, share=share).generate(
            PROMPTS[::2], max_new_tokens=LENGTH, progress=False
        )
        for share in (False, True)
    )
    for before, after in zip(plain, shared, strict=True):
        for old, new in zip(before, after, strict=True):
            assert new.tokens == old.tokens
            found, wanted = new.telemetry.token_entropies, old.telemetry.token_entropies
            assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "eager", "n": 2, "branch_threshold": 0.5, "max_rollouts": 6},
        {"strategy": "adaptive_grid", "n": 6, "wave": 2, "vote_threshold": 1.0},
    ],
    ids=lambda options: options["strategy"],
)
def test_every_strategy(options, llama, tokenizer):
    seen: list[tuple] = []
    expected = decode(llama, tokenizer, PROMPTS[::2], share=False, **options)
    assert decode(llama, tokenizer, PROMPTS[::2], watching(seen), **options) == expected
    assert any(shares for shares, *_ in seen)


def test_rows_that_waited_go_on_behind_their_prompt(llama, tokenizer, expected):
    """Memory runs out in the middle: rows are read anew, and what they drew comes after the prompt."""
    rows: list[int] = []

    def make(stack, cache):
        run = EagerRunner(stack, cache)

        def failing(batch):
            rows.append(batch.live)
            if len(rows) == 20:
                raise torch.OutOfMemoryError("injected")
            return run(batch)

        return failing

    assert decode(llama, tokenizer, PROMPTS[::2], make, **GRID) == expected[::2]
    assert max(rows[20:]) == rows[19] // 2 > 1


def test_prompts_make_room_for_others(llama, tokenizer):
    decoder = PoolDecoder(llama, tokenizer, spans="0", temperatures="1x4", max_rows=8)
    held: list[int] = []
    make = decoder.engine.make_runner

    def watched(stack, cache):
        held.append(cache)
        return make(stack, cache)

    decoder.engine.make_runner = watched
    tokens = tokenizer(PROMPTS[0]).input_ids
    requests = [
        decoder.request([33 + number, *tokens], decoder.cells, 3, StopRule(), f"d{number}")
        for number in range(40)
    ]
    assert len(dict(decoder.engine.run(requests))) == 40
    assert decoder.engine.prompts.most <= 8


def test_what_is_no_number_stays_with_its_prompt(tokenizer):
    """A later prompt takes the place of one whose keys and values are no numbers."""
    model = tiny_model().double()
    decoder = PoolDecoder(model, tokenizer, spans="0", temperatures="1x3", max_rows=3)
    broken = tokenizer(4 * STORY).input_ids
    with torch.no_grad():
        model.get_input_embeddings().weight[250] = torch.nan
    broken[-2] = 250
    whole = tokenizer(4 * STORY).input_ids
    requests = [
        decoder.request(tokens, decoder.cells, 6, StopRule(), f"d{number}")
        for number, tokens in enumerate([broken, whole])
    ]
    found = dict(decoder.engine.run(requests))
    assert {rollout.finish_reason for rollout in found[0]} == {"error"}
    [(_, alone)] = decoder.engine.run(requests[1:])
    assert [rollout.tokens for rollout in found[1]] == [rollout.tokens for rollout in alone]
    assert {len(rollout.tokens) for rollout in found[1]} == {6}
