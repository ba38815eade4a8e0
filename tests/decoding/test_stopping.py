"""Where rollouts end: stop strings across tokens and bytes, thinking parts, end tokens, length, context."""

from __future__ import annotations

import pytest
from tiny_models import EOS, tiny_model

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.stopping import StopRule


def decode(tokenizer, stop, text):
    """Feeds a text's tokens one by one to the rule, as the engine does; returns the cut text."""
    tokens = tokenizer(text).input_ids
    for count in range(1, len(tokens) + 1):
        if stop.reached(tokenizer, tokens[:count]):
            return stop.cut(tokenizer.decode(tokens[:count])), count
    return text, None


@pytest.mark.parametrize(
    ("strings", "text", "kept", "count"),
    [
        (("\n\n",), "one\n\ntwo", "one", 5),
        (("Problem:",), "so 4.\nProblem: next", "so 4.\n", 14),
        (("é",), "caf\u00e9 noir", "caf", 5),  # two tokens in this tokenizer, complete at the second
        (("🙂", "x"), "a🙂x", "a", 5),
        (("zz", "ab"), "1ab2zz", "1", 3),
        (("", "b"), "ab", "a", 2),
        ((), "ab\n\n", "ab\n\n", None),
        (("never",), "ab", "ab", None),
    ],
)
def test_a_stop_string_ends_at_the_token_that_completes_it(strings, text, kept, count, tokenizer):
    assert decode(tokenizer, StopRule(strings), text) == (kept, count)


def test_a_stop_string_inside_the_thinking_part_does_not_count(tokenizer):
    stop = StopRule(("\n\n",), after="</think>")
    text = "<think>a\n\nb</think>c\n\nd"
    assert decode(tokenizer, stop, text)[0] == "<think>a\n\nb</think>c"


def test_a_stop_string_longer_than_the_window_of_its_characters(tokenizer):
    string = "stop" * 20
    assert decode(tokenizer, StopRule((string,)), f"x{string}y") == ("x", 81)


def test_rollouts_end_by_end_token_stop_string_or_length(llama, tokenizer):
    decoder = PoolDecoder(llama, tokenizer, spans="0", temperatures="0:1x20")
    pool = decoder.generate("Tom", max_new_tokens=200, progress=False)[0]
    reasons = {rollout.finish_reason for rollout in pool}
    assert reasons == {"stop", "length"}, "both kinds must occur for the rest to prove anything"
    for rollout in pool:
        ended = rollout.tokens[-1] == EOS
        assert rollout.finish_reason == ("stop" if ended else "length")
        assert rollout.truncated == (not ended)
        assert EOS not in rollout.tokens[:-1]
        assert ended or len(rollout.tokens) == 200
    full = max(pool, key=lambda rollout: len(rollout.text))
    middle = full.text[20:22]
    cut = PoolDecoder(llama, tokenizer, spans="0", temperatures="0:1x20").generate(
        "Tom", max_new_tokens=200, until=[middle], progress=False
    )[0]
    same = next(rollout for rollout in cut if rollout.cell == full.cell)
    assert same.finish_reason == "stop"
    assert same.text == full.text[: full.text.index(middle)]
    assert same.tokens == full.tokens[: len(same.tokens)]


def test_the_context_bounds_the_length(llama, tokenizer):
    decoder = PoolDecoder(llama, tokenizer, spans="0", temperatures="0", max_length=20)
    rollout = decoder.generate("0123456789", max_new_tokens=50, progress=False)[0][0]
    assert len(rollout.tokens) <= 10
    with pytest.raises(ValueError, match="20 tokens leave no room in the context of 20 tokens"):
        decoder.generate("x" * 20, progress=False)
    with pytest.raises(ValueError, match="at least one token"):
        decoder.generate("", progress=False)


def test_a_prompt_of_one_token(llama, tokenizer):
    pool = PoolDecoder(llama, tokenizer, spans="0:2").generate("T", max_new_tokens=5, progress=False)[0]
    assert len(pool) == 8
    assert all(rollout.tokens for rollout in pool)


def test_requests_of_different_length_and_stops_run_together(tokenizer):
    decoder = PoolDecoder(tiny_model().double(), tokenizer, spans="0:1", temperatures="0:1", max_rows=6)
    limits = [3, 30, 1, 12, 7]
    requests = [
        decoder.request([65 + i], decoder.cells, limit, StopRule(("e",)), f"d{i}")
        for i, limit in enumerate(limits)
    ]
    together = dict(decoder.decode(requests))
    for number, request in enumerate(requests):
        [(_, alone)] = decoder.decode([request])
        assert [(r.cell, r.tokens, r.text, r.finish_reason) for r in together[number]] == [
            (r.cell, r.tokens, r.text, r.finish_reason) for r in alone
        ]
