"""Filling the cache with what comes before the newest token of rows that begin or go on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lm_eval_eglr.decoding.layer_stack import LayerStack
from lm_eval_eglr.decoding.prefixes import Prefixes
from lm_eval_eglr.decoding.row_cache import RowCache
from lm_eval_eglr.decoding.rows import Request, Row

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
    groups = _once_per_document(
        [_group(prefix, same, rows, prefixes) for (_, prefix), same in sequences.items()]
    )
    rows += [*(each.rows[0] for each in groups), *(row for each in groups for row in each.rows[1:])]
    longest = max(len(each.prefix) for each in groups)
    cache.reserve(len(rows), longest + 1)
    slot = start
    for begun, together in itertools.groupby(groups, key=lambda group: group.begun):
        some = list(together)
        copies: dict[int, int] = {}  # origin by slot
        for number, each in enumerate(some, slot):
            if each.origin is not None:
                copies[number] = each.origin
            elif begun:
                cache.write_row(number, prefixes.states(each.request.document))
        if copies:
            cache.copy_rows(list(copies.values()), list(copies), begun)
        _run(stack, cache, slot, begun, [each.prefix for each in some])
        for number, each in enumerate(some, slot):
            request = each.request
            length = request.prompt_length - 1
            if request.keeps and length and not prefixes.length(request.document, each.prefix):
                prefixes.keep(request.document, each.prefix[:length], cache.read_row(number, length))
        slot += len(some)
    origins = [start + n for n, each in enumerate(groups) for _ in each.rows[1:]]
    if origins:
        cache.copy_rows(origins, range(slot, len(rows)), longest)
    for each in groups:
        # What is prefilled once more after a shortage is not counted: it is not of the method's making.
        job = each.rows[0].job
        if job.row_steps == 0:
            job.plain_layer_tokens += stack.depth * (len(each.prefix) - each.begun)


@dataclass(slots=True)
class _Group:
    """Equal rows of a pool.

    Attributes:
        prefix: All their tokens but the newest.
        rows: The rows.
        begun: Positions that are there.
        origin: Slot of the live row that has them; ``None`` where they are kept of the prompt.
    """

    prefix: tuple[int, ...]
    rows: list[Row]
    begun: int
    origin: int | None = None

    @property
    def request(self) -> Request:
        return self.rows[0].job.request


def _group(prefix: tuple[int, ...], same: list[Row], live: Sequence[Row], prefixes: Prefixes) -> _Group:
    """Equal rows, with the longest beginning of theirs that a live row of the pool or the prompt has."""
    group = _Group(prefix, same, prefixes.length(same[0].job.request.document, prefix))
    for slot, row in enumerate(live):
        if row.job is same[0].job and (common := _common(same[0], row)) > group.begun:
            group.begun, group.origin = common, slot
    return group


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
    for group in sorted(groups, key=lambda group: group.begun):
        request = group.request
        if not group.begun and request.keeps:
            if request.document in fresh:
                group.begun = request.prompt_length - 1
            fresh.add(request.document)
    return sorted(groups, key=lambda group: group.begun)


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
