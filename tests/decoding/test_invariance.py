"""Laws of invariance: what a rollout is does not depend on how, when or beside what it is decoded."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.stopping import StopRule

PROMPTS = [
    "One apple",
    "What is 12 * 7? Think and then",
    "Tom",
    "A much longer prompt than all the others here, so",
]
GRID = {"spans": "0:1:3", "temperatures": "0:0.8x2:1.3", "entropy_threshold": 1.0}


def texts(pools):
    return [[(rollout.cell, rollout.tokens) for rollout in pool] for pool in pools]


@pytest.fixture(scope="module")
def llama():
    """In fp64: the shape of a batch changes rounding, and in fp32 a draw can fall between two roundings.

    With 29 more bits that does not happen in a test's lifetime, so every difference is a fault.
    """
    return tiny_model().double()


@pytest.fixture(scope="module")
def expected(llama, tokenizer):
    return texts(PoolDecoder(llama, tokenizer, **GRID).generate(PROMPTS, max_new_tokens=16, progress=False))


@pytest.mark.parametrize(
    "changes", [{"share": False}, {"max_rows": 1}, {"max_rows": 17}, {"max_rows": 256}], ids=str
)
def test_sharing_and_batch_size_change_nothing(changes, llama, tokenizer, expected):
    found = PoolDecoder(llama, tokenizer, **GRID, **changes).generate(
        PROMPTS, max_new_tokens=16, progress=False
    )
    assert texts(found) == expected


def test_order_and_company_of_prompts_change_nothing(llama, tokenizer, expected):
    order = [2, 0, 3, 1]
    decoder = PoolDecoder(llama, tokenizer, **GRID, max_rows=24)
    found = decoder.generate([PROMPTS[i] for i in order], max_new_tokens=16, progress=False)
    assert texts(found) == [expected[i] for i in order]
    alone = decoder.generate(PROMPTS[1], max_new_tokens=16, progress=False)
    assert texts(alone) == [expected[1]]


@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_grid_and_its_sub_grid_agree_on_their_cells(data, llama, tokenizer):
    spans = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True))
    temperatures = data.draw(st.lists(st.sampled_from([0.5, 0.9, 1.4]), min_size=1, max_size=4))
    noise = data.draw(st.sampled_from(["shared", "independent"]))
    length = data.draw(st.integers(1, 12))
    rows = data.draw(st.integers(1, 40))
    prompts = data.draw(st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=4, unique=True))
    until = data.draw(st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=2), max_size=3))
    options = {"entropy_threshold": 1.0, "noise": noise}

    def decode(spans, temperatures, prompts, rows):
        decoder = PoolDecoder(
            llama, tokenizer, spans=spans, temperatures=temperatures, max_rows=rows, **options
        )
        pools = decoder.generate(prompts, max_new_tokens=length, until=until, progress=False)
        for pool in pools:
            for rollout in pool:
                assert not any(stop in rollout.text for stop in until)
        return {
            (prompt, rollout.cell): (rollout.tokens, rollout.text, rollout.finish_reason)
            for prompt, pool in zip(prompts, pools, strict=True)
            for rollout in pool
        }

    whole = decode(spans, [0.0, *temperatures], prompts, rows)
    part = decode(spans[:1], temperatures[:2], prompts[-1:], 1)
    assert part.items() <= whole.items()


def test_the_seed_decides(llama, tokenizer, expected):
    def decode(**options):
        decoder = PoolDecoder(llama, tokenizer, **GRID, **options)
        return texts(decoder.generate(PROMPTS, max_new_tokens=16, progress=False))

    assert decode() == expected
    other = decode(seed=1)
    for before, after in zip(expected, other, strict=True):
        for (cell, old), (_, new) in zip(before, after, strict=True):
            assert (old == new) == (cell.temperature == 0)


def test_repeated_prompts_are_drawn_anew(llama, tokenizer):
    first, second = PoolDecoder(llama, tokenizer, **GRID).generate(
        ["Tom", "Tom"], max_new_tokens=16, progress=False
    )
    for old, new in zip(first, second, strict=True):
        assert (old.tokens == new.tokens) == (old.cell.temperature == 0)


@pytest.mark.parametrize(("noise", "equal"), [("shared", True), ("independent", False)])
def test_noise_decides_whether_spans_share_their_draws(noise, equal, llama, tokenizer):
    """With a recursion that changes nothing, only the draws can tell two spans apart."""
    decoder = PoolDecoder(llama, tokenizer, spans="0:2", temperatures="1", strength=0.0, noise=noise)
    pool = decoder.generate(PROMPTS[1], max_new_tokens=16, progress=False)[0]
    assert (pool[0].tokens == pool[1].tokens) is equal


def test_cells_that_agree_are_computed_once(llama, tokenizer):
    decoder = PoolDecoder(llama, tokenizer, spans="0:1:2:3", temperatures="0", entropy_threshold=100.0)
    pool = decoder.generate(PROMPTS[0], max_new_tokens=10, progress=False)[0]
    assert pool.cost.tokens == 4 * pool.cost.rows == 40
    alone = PoolDecoder(llama, tokenizer, spans="0", temperatures="0").generate(
        PROMPTS[0], max_new_tokens=10, progress=False
    )[0]
    assert pool.cost.flops == alone.cost.flops
    assert alone.cost.flops == alone.cost.plain_flops


def test_no_global_randomness_is_touched(llama, tokenizer):
    def states():
        kind, words, *rest = np.random.get_state()  # noqa: NPY002
        return torch.get_rng_state().tolist(), random.getstate(), (kind, words.tolist(), *rest)

    before = states()
    for noise in ("shared", "independent"):
        decoder = PoolDecoder(llama, tokenizer, **GRID, noise=noise, top_p=0.9)
        decoder.generate(PROMPTS[:1], max_new_tokens=4, progress=False)
    assert states() == before


def test_the_model_is_left_as_it_was(llama, tokenizer):
    before = llama.config._attn_implementation, dict(llama.get_decoder().__dict__)
    hooks = [len(module._forward_pre_hooks) for module in llama.modules()]
    decoder = PoolDecoder(llama, tokenizer, **GRID)
    pools = decoder.decode([decoder.request([1, 2], decoder.cells, 3, stop_nothing(), "d")])
    next(pools)  # in the middle of the run, too
    assert (llama.config._attn_implementation, dict(llama.get_decoder().__dict__)) == before
    assert [len(module._forward_pre_hooks) for module in llama.modules()] == hooks


def stop_nothing():
    from lm_eval_eglr.decoding.stopping import StopRule

    return StopRule()


def test_requests_that_need_more_rows_than_those_before_wait_for_each_other(llama, tokenizer):
    """Short requests teach the engine that twelve cells take one row; the long ones that follow fork."""
    decoder = PoolDecoder(llama, tokenizer, **GRID, max_rows=24)
    requests = [
        decoder.request([65 + number % 20], decoder.cells, 1 if number < 8 else 12, StopRule(), f"d{number}")
        for number in range(16)
    ]
    most = []
    run = decoder.engine.run(requests, lambda tokens, rollouts: most.append(decoder.engine.tree.count))
    found = dict(run)
    assert max(most) == 24
    alone = PoolDecoder(llama, tokenizer, **GRID)
    for number in (0, 7, 8, 11, 15):  # the first and the last of both kinds, and one that waited
        [(_, pool)] = alone.decode([requests[number]])
        assert texts([found[number]]) == texts([pool])


def test_pools_that_fill_the_batch_are_decoded_one_by_one(llama, tokenizer):
    decoder = PoolDecoder(llama, tokenizer, **GRID, max_rows=1)
    jobs = []
    requests = [decoder.request([65 + n], decoder.cells, 3, StopRule(), f"d{n}") for n in range(8)]
    run = decoder.engine.run(
        requests,
        lambda tokens, rollouts: jobs.append([job.number for job in decoder.engine.tree.jobs if job]),
    )
    assert len(dict(run)) == 8
    assert max(map(len, jobs)) == 1
