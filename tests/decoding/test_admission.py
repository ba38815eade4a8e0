"""Rollouts that end make room at once: no prompt waits for the slowest rollout of another one."""

from __future__ import annotations

from tiny_models import tiny_model

from lm_eval_eglr.decoding import PoolDecoder

ROWS = 16
CELLS = 8


def test_a_prompt_begins_as_soon_as_the_live_rollouts_leave_room_for_it(tokenizer):
    model = tiny_model()
    decoder = PoolDecoder(model, tokenizer, spans="0", temperatures=f"1x{CELLS}", max_rows=ROWS, share=False)
    # A fifth of the vocabulary ends a rollout: five tokens in the mean, and the longest of a pool has more.
    decoder.engine.eos_token_ids = frozenset(range(0, model.config.vocab_size, 5))
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
