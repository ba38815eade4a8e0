"""Rollouts that end make room at once: no prompt waits for the slowest rollout of another one."""

from __future__ import annotations

from tiny_models import tiny_model

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.stopping import StopRule

ROWS = 16
CELLS = 8


def test_a_prompt_begins_as_soon_as_the_live_rollouts_leave_room_for_it(tokenizer):
    model = tiny_model()
    decoder = PoolDecoder(model, tokenizer, spans="0", temperatures=f"1x{CELLS}", max_rows=ROWS, share=False)
    # A fifth of the vocabulary ends a rollout: five tokens in the mean, and the longest of a pool has more.
    decoder.engine.end_tokens = frozenset(range(0, model.config.vocab_size, 5))
    prompts = [f"Prompt number {number} of them" for number in range(8)]
    live: list[int] = []  # rows of each decoding pass
    prefilled: list[int] = []  # positions of each batch of prompts
    before_prompts: list[int] = []  # passes before each batch of prompts

    def note(_, arguments):
        rows, queries = arguments[0].shape
        if queries > 1:
            prefilled.append(rows * queries)
            before_prompts.append(len(live))
        else:
            live.append(rows)

    with model.get_input_embeddings().register_forward_pre_hook(note):
        pools = decoder.generate(prompts, max_new_tokens=40, progress=False)

    lengths = [len(rollout.tokens) for pool in pools for rollout in pool]
    assert sum(live) == sum(lengths)
    assert max(lengths) > 2 * sum(lengths) / len(lengths)  # else there would be nothing to see
    # All rows are taken until the last prompt has begun, though pools have eight and rows free up one by one.
    assert set(live[: before_prompts[-1]]) == {ROWS}
    assert max(live) <= ROWS
    # A rollout that begins later than others of its pool goes on from what these have read.
    assert sum(prefilled) == sum(len(tokenizer(prompt).input_ids) - 1 for prompt in prompts)


def test_rows_wait_while_too_many_others_are_being_recursed(tokenizer):
    model = tiny_model()
    tokens = 20
    decoder = PoolDecoder(
        model,
        tokenizer,
        spans="0:1:2",
        temperatures=f"1x{CELLS}",
        max_rows=3 * CELLS,
        share=False,
        entropy_threshold=2.5,
        tolerance=0.02,
    )
    decoder.engine.end_tokens = frozenset()
    started: list[int] = []  # rows that each pass began with
    passes: list[int] = []  # rows in the last layer of each pass

    def count(noted):
        def note(_, arguments, kwargs):
            hidden = kwargs.get("hidden_states", arguments[0] if arguments else None)
            if hidden.shape[1] == 1:
                noted.append(len(hidden))

        return note

    first, last = (model.model.layers[place].self_attn for place in (0, -1))
    with (
        first.register_forward_pre_hook(count(started), with_kwargs=True),
        last.register_forward_pre_hook(count(passes), with_kwargs=True),
    ):
        decoder.generate("Tom has 3 apples and buys 4 more, so", max_new_tokens=tokens, progress=False)

    # No rollout can end before that many passes, so all rows are live in them.
    # What the head costs, in layers, counts in both kinds of passes.
    head = model.lm_head.weight.numel() / sum(each.numel() for each in model.model.layers[0].parameters())
    full, alone = model.config.num_hidden_layers + head, 2 + head
    assert min(started[:tokens]) >= full / (full + alone) * 3 * CELLS
    assert min(started[:tokens]) < 3 * CELLS, "rows always waited for all others"
    assert len(started) < len(passes), "recursions never ran alone"


def test_rows_that_are_recursed_take_none_from_those_that_are_live(tokenizer):
    """A batch stays full however many of its rows are being recursed: an iteration takes no slot."""
    model = tiny_model()
    decoder = PoolDecoder(
        model,
        tokenizer,
        spans="0:2",
        temperatures=f"1x{CELLS // 2}",
        max_rows=ROWS,
        share=False,
        entropy_threshold=2.5,
    )
    decoder.engine.end_tokens = frozenset(range(0, model.config.vocab_size, 5))
    make = decoder.engine.make_runner
    passes: list[tuple[int, int]] = []  # live rows and recursions of each pass
    requests = [
        decoder.request(tokenizer(f"Prompt {n}").input_ids, decoder.cells, 40, StopRule(), str(n))
        for n in range(8)
    ]
    begun: list[int] = []  # passes before each request was taken

    def counting(stack, cache):
        run = make(stack, cache)

        def counted(batch):
            passes.append((batch.live, len(batch.recursions)))
            return run(batch)

        return counted

    def taken():
        for request in requests:
            begun.append(len(passes))
            yield request

    decoder.engine.make_runner = counting
    assert len(dict(decoder.engine.run(taken()))) == len(requests)
    busy = passes[: begun[-1]]
    assert {live for live, _ in busy} == {ROWS}
    assert max(recursions for _, recursions in busy) >= ROWS / 4


def test_room_for_the_longest_prompt_is_made_before_it_comes(llama, tokenizer, monkeypatch):
    """Else all that is stored would be copied when it comes, and graphs be captured again."""
    copied = []
    original = KVCache.reserve

    def reserve(cache, rows, length):
        before, holds = cache.growth, bool(cache.keys)
        original(cache, rows, length)
        if holds and cache.growth > before:
            copied.append(cache.length)

    monkeypatch.setattr(KVCache, "reserve", reserve)
    decoder = PoolDecoder(
        llama, tokenizer, spans="0:1", temperatures="1x2", max_rows=4, entropy_threshold=1.0
    )
    pools = decoder.generate(["a", "a" * 20, "a" * 70], max_new_tokens=5, progress=False)
    assert [len(pool) for pool in pools] == [4, 4, 4]
    assert not copied
