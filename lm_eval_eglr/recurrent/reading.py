"""Reading prompts, and what was generated, into the cache: side by side where that is exact, else in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.numerics import on_device
from lm_eval_eglr.decoding.prefill import PREFILL_TOKENS, Reading
from lm_eval_eglr.recurrent.stack import NONE, RecurrentStack, Tokens


@torch.no_grad()
def read_rows(stack: RecurrentStack, cache: KVCache, rows: Sequence[Reading]) -> list[tuple[int, int]]:
    """Reads rows, each from the position where it has begun on.

    A prompt's tokens are read side by side, iteration by iteration, and make all iterations. Generated tokens
    come out as they were decoded: where what a token leaves depends on how many iterations it made, they are
    read one by one.

    Returns:
        Positions that were read, and layers beyond those that every token takes, of each row.
    """
    parts = [_side_by_side(stack, row) for row in rows]
    for batch in _batches([len(part.ids) for part in parts]):
        some = [parts[number] for number in batch if len(parts[number].ids)]
        if some:
            stack.run(cache, _joined(some), NONE, exits=False)
    layers = np.array(
        [
            stack.recurrent.core_layers * len(part.ids) * row.level
            for part, row in zip(parts, rows, strict=True)
        ]
    )
    counts = np.array([len(part.ids) for part in parts])
    _one_by_one(stack, cache, rows, counts, layers)
    return list(zip(counts.tolist(), layers.tolist(), strict=True))


def _side_by_side(stack: RecurrentStack, row: Reading) -> Tokens:
    """The tokens of a row that are read together."""
    whole, start = stack.recurrent.reads_prompts_whole, len(row.prompt) - 1
    tokens, end = row.prefix, len(row.prefix)
    if whole and row.begun < start and end == start:
        tokens, end = row.prompt, len(row.prompt)  # those before it attend to the newest one, too
    if not stack.config.reads_in_step(row.level):
        end = max(row.begun, min(end, start + whole))
    positions = np.arange(row.begun, end)
    seen = positions + 1
    if whole:
        seen = np.maximum(seen, len(row.prompt)) if row.begun < start else seen
    return Tokens(
        np.array(tokens[row.begun : end], np.int64),
        positions,
        np.full(len(positions), row.slot),
        np.full(len(positions), row.level),
        seen,
    )


def _joined(parts: Sequence[Tokens]) -> Tokens:
    names = ("ids", "positions", "slots", "levels", "seen")
    return Tokens(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _batches(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of parts that are run together: no more tokens than a pass may have, or a single part."""
    batch: list[int] = []
    total = 0
    for number, size in enumerate(sizes):
        if batch and total + size > PREFILL_TOKENS:
            yield batch
            batch, total = [], 0
        batch.append(number)
        total += size
    if batch:
        yield batch


def _one_by_one(
    stack: RecurrentStack, cache: KVCache, rows: Sequence[Reading], counts: np.ndarray, layers: np.ndarray
) -> None:
    """Reads the generated tokens that are left, all rows in step; adds to what was counted."""
    slots, levels = (np.array([getattr(row, name) for row in rows]) for name in ("slot", "level"))
    first = np.array([max(row.begun, len(row.prompt) - 1) for row in rows])
    last = np.array([0 if stack.config.reads_in_step(row.level) else len(row.prefix) for row in rows])
    for column in range(int(first.min()), int(last.max(initial=0))):
        places = np.flatnonzero((first <= column) & (column < last))
        if not len(places):
            continue
        ids = np.array([rows[place].prefix[column] for place in places.tolist()])
        positions = np.full(len(places), column)
        tokens = Tokens.causal(ids, positions, slots[places], levels[places])
        _, made = stack.run(cache, tokens, NONE)
        counts[places] += 1
        layers[places] += stack.work(made)[:, 0]


@torch.no_grad()
def token_logprobs(
    stack: RecurrentStack, prompt: Sequence[int], tokens: Sequence[int], level: int
) -> list[float]:
    """ln p(token | prefix) of each token after a prompt at temperature 1, nats, by teacher forcing.

    Args:
        stack: The model.
        prompt: Prompt token ids, at least one.
        tokens: The continuation.
        level: Iterations that each token may make.

    Raises:
        ValueError: For an empty prompt.
    """
    if not prompt:
        raise ValueError("prompt: expected at least one token, got an empty prompt")
    sequence = np.array([*prompt, *tokens])
    cache = KVCache(1)
    cache.reserve(1, len(sequence))
    first, last = len(prompt) - 1, len(sequence) - 1
    found: list[float] = []
    with stack.installed():
        read_rows(stack, cache, [Reading(0, 0, tuple(prompt[:-1]), tuple(prompt), level)])
        step = last - first if stack.config.reads_in_step(level) else 1
        for start in range(first, last, max(1, step)):
            positions = np.arange(start, min(start + step, last))
            zeros = np.zeros(len(positions), np.int64)
            run = Tokens.causal(sequence[positions], positions, zeros, zeros + level)
            logprobs, _ = stack.run(cache, run, np.arange(len(positions)))
            drawn = on_device(sequence[positions + 1], logprobs.device)
            found += logprobs[torch.arange(len(drawn), device=drawn.device), drawn].tolist()
    return found
