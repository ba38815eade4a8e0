"""Filling the cache with what comes before the newest token of rows that begin or go on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lm_eval_eglr.decoding.layer_stack import LayerStack
from lm_eval_eglr.decoding.row_cache import RowCache
from lm_eval_eglr.decoding.rows import Row

PREFILL_CHUNK = 512  # positions per prefill pass
PREFILL_TOKENS = 8192  # rows × positions per prefill pass, which bounds its activations


def prefill(stack: LayerStack, cache: RowCache, rows: list[Row], admitted: Sequence[Row]) -> None:
    """Adds rows to the live ones and runs all their tokens but the newest, which the next pass runs.

    Equal ones of a pool are run once and copied, also where its cells do not share their rows.

    Args:
        stack: The model.
        cache: Holds the live rows.
        rows: The live rows, in the order of their slots. Those that are added are there even if this fails.
        admitted: The rows to add.
    """
    start = len(rows)
    sequences: dict[tuple[int, tuple[int, ...]], list[Row]] = {}
    for row in admitted:
        prefix = tuple(row.sequence()[: row.position])
        sequences.setdefault((row.job.number, prefix), []).append(row)
    prefixes = [prefix for _, prefix in sequences]
    firsts = [same[0] for same in sequences.values()]
    others = [(start + n, row) for n, same in enumerate(sequences.values()) for row in same[1:]]
    rows += [*firsts, *(row for _, row in others)]
    longest = max(map(len, prefixes))
    cache.reserve(len(rows), longest + 1)
    for column in range(0, longest, PREFILL_CHUNK):
        queries = min(PREFILL_CHUNK, longest - column)
        batch = max(1, PREFILL_TOKENS // queries)
        for first in range(0, len(prefixes), batch):
            some = prefixes[first : first + batch]
            tokens = torch.zeros(len(some), queries, dtype=torch.long)
            for i, sequence in enumerate(some):
                # Padding on the right is never attended to, and overwritten as the row grows.
                part = sequence[column : column + queries]
                tokens[i, : len(part)] = torch.tensor(part, dtype=torch.long)
            positions = torch.arange(column, column + queries).expand(len(some), -1)
            cache.begin_prefill(slice(start + first, start + first + len(some)), column, queries)
            stack.forward(tokens, positions, cache)
    if others:
        targets = range(start + len(firsts), len(rows))
        cache.copy_rows([origin for origin, _ in others], targets, longest)
    for row in firsts:
        # What is prefilled once more after a shortage is not counted: it is not of the method's making.
        if row.job.row_steps == 0:
            row.job.plain_layer_tokens += stack.depth * row.position
