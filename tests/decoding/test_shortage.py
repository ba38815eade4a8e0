"""When memory runs out, decoding goes on with fewer rows and loses nothing."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest
import torch
from lm_eval_eglr.decoding.items import Items
from lm_eval_eglr.decoding.layer_stack import LayerStack
from lm_eval_eglr.decoding.row_cache import RowCache
from lm_eval_eglr.decoding.shortage import OutOfMemory
from tiny_models import tiny_model

from lm_eval_eglr.decoding import PoolDecoder, engine
from lm_eval_eglr.decoding.stopping import StopRule

PROMPTS = ["One apple", "What is 12 * 7? Think and then", "Tom"]
LENGTH = 7
GRID = {"spans": "0:1:3", "temperatures": "0:0.8:1.3", "entropy_threshold": 1.0}
ERRORS = {
    "torch": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "torch on a CPU": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    "numpy": lambda: MemoryError("Unable to allocate 3.0 GiB"),
}


@pytest.fixture(scope="module")
def llama():
    return tiny_model().double()  # as in test_invariance: the number of rows changes rounding


def decode(llama, tokenizer, **options):
    decoder = PoolDecoder(llama, tokenizer, **GRID, **options)
    pools = decoder.generate(PROMPTS, max_new_tokens=LENGTH, progress=False)
    return [[(rollout.cell, rollout.tokens, rollout.finish_reason) for rollout in pool] for pool in pools]


@pytest.fixture(scope="module")
def expected(llama, tokenizer):
    return {kv: decode(llama, tokenizer, kv=kv) for kv in ("keep", "overwrite")}


def refuse_rows(monkeypatch, most, error=ERRORS["torch"]):
    """An allocator that has room for so many rows."""
    forward = LayerStack.forward

    def limited(self, tokens, positions, cache, items=None):
        rows = len(tokens)
        if isinstance(items, Items):  # several spans of one row are recursed side by side
            rows += len({id(row) for row in items.owners}) - len(items)
        if rows > most:
            raise error()
        return forward(self, tokens, positions, cache, items)

    monkeypatch.setattr(LayerStack, "forward", limited)


@pytest.mark.parametrize("most", [1, 7])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kv", ["keep", "overwrite"])
def test_fewer_rows_give_the_same_rollouts(kv, share, most, monkeypatch, llama, tokenizer, expected, caplog):
    decoder = PoolDecoder(llama, tokenizer, **GRID, kv=kv, share=share)
    refuse_rows(monkeypatch, most)
    with caplog.at_level(logging.WARNING):
        pools = decoder.generate(PROMPTS, max_new_tokens=LENGTH, progress=False)
    found = [[(r.cell, r.tokens, r.finish_reason) for r in pool] for pool in pools]
    assert found == expected[kv]
    assert "out of memory with" in caplog.text
    assert "going on with at most" in caplog.text


def test_pools_that_branch_begin_anew(monkeypatch, llama, tokenizer):
    def branches():
        decoder = PoolDecoder(llama, tokenizer, strategy="eager", n=4, branch_threshold=0.5, budget="none")
        pools = decoder.generate(PROMPTS, max_new_tokens=LENGTH, progress=False)
        return [[(str(r.cell), r.tokens) for r in pool] for pool in pools]

    expected = branches()
    assert any(len(pool) == 4 for pool in expected), "nothing branched"
    refuse_rows(monkeypatch, 5)
    assert branches() == expected


@pytest.mark.parametrize("name", ERRORS)
def test_every_allocator_is_understood(name, monkeypatch, llama, tokenizer, expected):
    decoder = PoolDecoder(llama, tokenizer, **GRID)
    refuse_rows(monkeypatch, 4, ERRORS[name])
    pools = decoder.generate(PROMPTS, max_new_tokens=LENGTH, progress=False)
    assert [[(r.cell, r.tokens, r.finish_reason) for r in pool] for pool in pools] == expected["keep"]


PLACES = {
    "reserve": (RowCache, "reserve"),
    "copy_rows": (RowCache, "copy_rows"),
    "a pass": (LayerStack, "forward"),
    "recursions begin": (Items, "join"),
    "recursions end": (Items, "observe"),
    "record_tokens": (engine, "record_tokens"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kv", ["keep", "overwrite"])
@pytest.mark.parametrize("call", [1, 3])
def test_it_may_run_out_anywhere(place, kv, call, monkeypatch, llama, tokenizer, expected):
    """Also where a step has begun to append tokens, and while rows are copied."""
    decoder = PoolDecoder(llama, tokenizer, **GRID, kv=kv)
    owner, name = PLACES[place]
    original, calls = getattr(owner, name), []

    def failing(*args, **kwargs):
        calls.append(None)
        if len(calls) == call:
            raise torch.OutOfMemoryError("injected")
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)
    pools = decoder.generate(PROMPTS, max_new_tokens=LENGTH, progress=False)
    assert len(calls) >= call, "memory never ran out"
    assert [[(r.cell, r.tokens, r.finish_reason) for r in pool] for pool in pools] == expected[kv]


def test_what_no_row_has_room_for_is_said(monkeypatch, llama, tokenizer):
    decoder = PoolDecoder(llama, tokenizer, **GRID)
    refuse_rows(monkeypatch, 0)
    with pytest.raises(OutOfMemory, match=r"out of memory with one row of \d+ tokens .*lower max_gen_toks"):
        decoder.generate(PROMPTS, max_new_tokens=LENGTH, progress=False)


def test_other_errors_are_not_taken_for_a_shortage(monkeypatch, llama, tokenizer):
    decoder = PoolDecoder(llama, tokenizer, **GRID)
    refuse_rows(monkeypatch, 3, lambda: RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        decoder.generate(PROMPTS, max_new_tokens=LENGTH, progress=False)


def test_memory_does_not_grow_with_the_number_of_requests(tokenizer):
    """10,000 requests: never more of them alive than there are rows, and one that was read ahead."""
    stub = tiny_model(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                      num_key_value_heads=1)  # fmt: skip
    decoder = PoolDecoder(stub, tokenizer, spans="0", temperatures="1", max_rows=64)
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    class Tracked:
        """Hangs on each request, and goes with it."""

    def requests():
        for number in range(10_000):
            request = decoder.request([number % 256], decoder.cells, 2, StopRule(), str(number))
            mark = Tracked()
            object.__setattr__(request, "prompt", mark)
            alive.add(mark)
            yield request

    count = 0
    for _, pool in decoder.decode(requests()):
        count += 1
        del pool
        if count % 500 == 0:
            gc.collect()
        most = max(most, len(alive))
    assert count == 10_000
    assert most <= 2 * 64 + 1
    assert len(decoder.engine.rows) == 0
