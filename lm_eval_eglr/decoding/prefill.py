"""Filling the cache with what comes before the newest token of rows that begin or go on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from lm_eval_eglr.decoding.layer_stack import LayerStack
from lm_eval_eglr.decoding.prefixes import Prefixes
from lm_eval_eglr.decoding.row_cache import RowCache
from lm_eval_eglr.decoding.rows import Row

PREFILL_CHUNK = 512  # positions per prefill pass
PREFILL_TOKENS = 8192  # rows × positions per prefill pass, which bounds its activations


def prefill(
    stack: LayerStack, cache: RowCache, rows: list[Row], admitted: Sequence[Row], prefixes: Prefixes
) -> None:
    """Adds rows to the live ones and runs all their tokens but the newest, which the next pass runs.

    Equal ones of a pool are run once and copied, also where its cells do not share their rows. Prompts that
    are kept are not run again, nor is what a row has in common with a live one of its pool.

    Args:
        stack: The model.
        cache: Holds the live rows.
        rows: The live rows, in the order of their slots. Those that are added are there even if this fails.
        admitted: The rows to add.
        prefixes: What is kept of prompts, and gets those that are to be kept.
    """
    start = len(rows)
    sequences: dict[tuple[int, tuple[int, ...]], list[Row]] = {}
    for row in admitted:
        prefix = tuple(row.sequence()[: row.position])
        sequences.setdefault((row.job.number, prefix), []).append(row)
    live: dict[int, list[tuple[int, Row]]] = {}
    for slot, row in enumerate(rows):
        live.setdefault(row.job.number, []).append((slot, row))
    groups: list[_Group] = []
    origins_of: dict[
        int, int
    ] = {}  # slot of the live row that goes before the first of equal rows, by its id
    for (number, prefix), same in sequences.items():
        begun = prefixes.length(same[0].job.request.document, prefix)
        for slot, row in live.get(number, []):
            common = _common(same[0], row)
            if common > begun:
                begun, origins_of[id(same[0])] = common, slot
        groups.append((begun, prefix, same))
    groups = _once_per_document(sorted(groups, key=lambda group: group[0]))
    rows += [*(same[0] for _, _, same in groups), *(row for _, _, same in groups for row in same[1:])]
    longest = max(len(prefix) for _, prefix, _ in groups)
    cache.reserve(len(rows), longest + 1)
    slot = start
    for begun, together in itertools.groupby(groups, key=lambda group: group[0]):
        some = list(together)
        copies: dict[int, int] = {}  # origin by slot
        for number, (_, _, same) in enumerate(some):
            if id(same[0]) in origins_of:
                copies[slot + number] = origins_of[id(same[0])]
            elif begun:
                cache.write_row(slot + number, prefixes.states(same[0].job.request.document))
        if copies:
            cache.copy_rows(list(copies.values()), list(copies), begun)
        _run(stack, cache, slot, begun, [prefix for _, prefix, _ in some])
        for number, (_, prefix, same) in enumerate(some):
            request = same[0].job.request
            length = request.prompt_length - 1
            if request.keeps and length and not prefixes.length(request.document, prefix):
                prefixes.keep(request.document, prefix[:length], cache.read_row(slot + number, length))
        slot += len(some)
    origins = [start + n for n, (_, _, same) in enumerate(groups) for _ in same[1:]]
    if origins:
        cache.copy_rows(origins, range(slot, len(rows)), longest)
    for begun, _, same in groups:
        # What is prefilled once more after a shortage is not counted: it is not of the method's making.
        if same[0].job.row_steps == 0:
            same[0].job.plain_layer_tokens += stack.depth * (same[0].position - begun)


_Group = tuple[int, tuple[int, ...], list[Row]]  # positions that are there, all that are wanted, equal rows


def _common(waiting: Row, live: Row) -> int:
    """How many of the positions before its newest token a row has in common with a live one of its pool."""
    shared = waiting.job.request.prompt_length
    for mine, its in zip(waiting.branches[0].tokens, live.branches[0].tokens, strict=False):
        if mine != its:
            break
        shared += 1
    return min(shared, waiting.position, live.length)


def _once_per_document(groups: list[_Group]) -> list[_Group]:
    """Lets the first of several requests of a document that begin together run its prompt for all."""
    fresh: set[str] = set()
    ordered: list[_Group] = []
    for begun, prefix, same in groups:
        request = same[0].job.request
        if not begun and request.keeps:
            if request.document in fresh:
                begun = request.prompt_length - 1
            fresh.add(request.document)
        ordered.append((begun, prefix, same))
    return sorted(ordered, key=lambda group: group[0])


def _run(
    stack: LayerStack, cache: RowCache, slot: int, begun: int, prefixes: Sequence[tuple[int, ...]]
) -> None:
    """Runs sequences from position ``begun`` on, in the slots from ``slot`` on, in chunks."""
    longest = max(map(len, prefixes))
    for column in range(begun, longest, PREFILL_CHUNK):
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
            cache.begin_prefill(slice(slot + first, slot + first + len(some)), column, queries)
            stack.forward(tokens, positions, cache)
