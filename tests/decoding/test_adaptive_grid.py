"""The adaptive grid opens cells of the grid as they are, stops at a decided vote, and keeps its budget."""

from __future__ import annotations

from collections import Counter

import pytest
from branch_paths import decoded
from eglr_selectors import available_selectors, get_selector, parse_pool
from eglr_selectors.builtin.sequential import settled
from eglr_selectors.factories import REQUIRED
from tiny_models import tiny_model

from lm_eval_eglr.decoding import PoolDecoder

PROMPTS = ["Tom has 3 apples", "A", "What is 12 * 7?", "8"]
GRID = {"spans": "0:1:3", "temperatures": "0:0.9x3", "entropy_threshold": 1.0}
LENGTH = 8


@pytest.fixture(scope="module")
def llama():
    return tiny_model().double()


@pytest.fixture(scope="module")
def whole(llama, tokenizer):
    return PoolDecoder(llama, tokenizer, **GRID).generate(PROMPTS, max_new_tokens=LENGTH, progress=False)


def adaptive(model, tokenizer, **options):
    decoder = PoolDecoder(model, tokenizer, strategy="adaptive_grid", **GRID, **options)
    return decoder, decoder.generate(
        PROMPTS, max_new_tokens=LENGTH, fallbacks=("last_number",), progress=False
    )


@pytest.mark.parametrize("max_rows", [1, 64])
def test_it_opens_cells_of_the_grid(max_rows, llama, tokenizer, whole):
    decoder, pools = adaptive(llama, tokenizer, n=6, max_rows=max_rows)
    for pool, full in zip(pools, whole, strict=True):
        [cells], [all_cells] = decoded([pool]), decoded([full])
        assert set(cells) <= set(all_cells)
        assert [each for each in all_cells if each in cells] == cells, "not in grid order"
    order = decoder.plan.order
    assert (order[0].span, order[0].temperature) == (0, 0.0)
    assert sorted(map(str, order)) == sorted(map(str, decoder.cells))
    assert decoded(adaptive(llama, tokenizer, n=6)[1]) == decoded(pools)


@pytest.mark.parametrize("budget", ["none", "free"])
def test_it_stops_at_a_decided_vote_and_within_its_budget(budget, llama, tokenizer):
    # With a threshold of 1/2 one answer decides, so prompts with an answer stop after a wave.
    _, pools = adaptive(llama, tokenizer, n=4, wave=2, vote_threshold=0.5, budget=budget)
    assert sum(map(len, pools)) <= 4 * len(PROMPTS)
    for pool in pools:
        counts = Counter(
            number for number in parse_pool(pool, fallbacks=("last_number",)).classes if number >= 0
        )
        decided = bool(counts) and settled(counts) >= 0.5
        if budget == "none":
            assert decided or len(pool) == 4
        assert len(pool) in range(2, 13)


def test_every_selector_takes_its_pools(llama, tokenizer):
    _, pools = adaptive(llama, tokenizer, n=3, wave=3)
    for name, info in available_selectors().items():
        if REQUIRED not in info.options.values():
            for pool in pools:
                selection = get_selector(name)(parse_pool(pool, "3", fallbacks=("last_number",)))
                assert selection.index is None or 0 <= selection.index < len(pool)


@pytest.mark.parametrize("max_rows", [1, 64])
def test_waves_read_their_prompt_once(max_rows, llama, tokenizer):
    """Every position of the prompt but the last, which the first step runs, costs the layers once."""
    decoder, pools = adaptive(llama, tokenizer, n=12, wave=2, vote_threshold=1.0, max_rows=max_rows)
    assert {len(pool) for pool in pools} == {12}
    for pool in pools:
        once = pool.cost.prompt_tokens - 1
        assert pool.cost.plain_layer_tokens == decoder.stack.depth * (once + pool.cost.rows)
    assert decoder.engine.prompts.most <= max_rows, "what is done with is forgotten"
