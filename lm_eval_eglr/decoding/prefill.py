"""Filling the cache with what comes before the newest token of rows that begin or go on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lm_eval_eglr.decoding.model.kv_cache import KVCache, RowStates
from lm_eval_eglr.decoding.model.layer_stack import LayerStack
from lm_eval_eglr.decoding.model.passes import PrefillPass
from lm_eval_eglr.decoding.request import Request, WaitingRow
from lm_eval_eglr.decoding.tree import Tree

PREFILL_CHUNK = 512  # positions per prefill pass
PREFILL_TOKENS = 8192  # rows × positions per prefill pass, which bounds its activations


class Prefixes:
    """Keys and values of prompts whose rollouts come in several requests: all but the first go on from them.

    They are kept until their strategy releases them, once for each level of depth where levels do not share
    rows. Only as many prompts are on their way at a time as have rows, so this holds about one row each.

    Attributes:
        most: Most prompts that were held at once.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], tuple[tuple[int, ...], RowStates]] = {}
        self.most = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, key: tuple[str, int], tokens: Sequence[int], states: RowStates) -> None:
        """Keeps the keys and values of the first ``tokens`` of a document's prompt at a level."""
        self._kept[key] = (tuple(tokens), states)
        self.most = max(self.most, len(self._kept))

    def length(self, key: tuple[str, int], tokens: Sequence[int]) -> int:
        """How many of the first ``tokens`` are kept."""
        kept, _ = self._kept.get(key, ((), {}))
        return len(kept) if tuple(tokens[: len(kept)]) == kept else 0

    def states(self, key: tuple[str, int]) -> RowStates:
        """What is kept of a document at a level."""
        return self._kept[key][1]

    def release(self, document: str) -> None:
        """Forgets a document, if it is known."""
        for key in [key for key in self._kept if key[0] == document]:
            del self._kept[key]

    def clear(self) -> None:
        """Forgets all."""
        self._kept.clear()


@dataclass(frozen=True, slots=True)
class Reading:
    """A row whose tokens are read, all but the newest.

    Attributes:
        slot: Its slot.
        begun: Positions that are there.
        prefix: All its tokens but the newest.
        prompt: The prompt, whose last token may be the newest.
        level: The level of depth that its cells have; 0 where cells of all levels share it.
    """

    slot: int
    begun: int
    prefix: tuple[int, ...]
    prompt: tuple[int, ...]
    level: int


ReadRows = Callable[[KVCache, Sequence[Reading]], Sequence[tuple[int, int]]]
"""Reads rows into the cache, in slots that follow each other and begun equally far; returns of each the
positions that were read, and the layers that they took beyond those that every token takes."""


@torch.no_grad()
def prefill(
    read: ReadRows, cache: KVCache, tree: Tree, admitted: Sequence[WaitingRow], prefixes: Prefixes
) -> None:
    """Gives rows slots and runs all their tokens but the newest, which the next pass runs.

    Equal ones of a pool are run once and copied, also where its cells do not share their rows. Prompts that
    are kept are not run again, nor is what a row has in common with a live one of its pool.

    Args:
        read: Runs the model.
        cache: Holds the live rows.
        tree: The live rows. Those that are added are there even if this fails.
        admitted: The rows to add.
        prefixes: What is kept of prompts, and gets those that are to be kept.
    """
    start = tree.count
    sequences: dict[tuple[int, int, tuple[int, ...]], list[WaitingRow]] = {}
    for row in admitted:
        key = (row.job.number, tree.table.level(row.cells[0]), tuple(tree.sequence(row)[:-1]))
        sequences.setdefault(key, []).append(row)
    groups = _once_per_document(
        [_group(tree, level, prefix, same, prefixes) for (_, level, prefix), same in sequences.items()]
    )
    tree.place([*(each.rows[0] for each in groups), *(row for each in groups for row in each.rows[1:])])
    longest = max(len(each.prefix) for each in groups)
    limits = [each.request.prompt_length + each.request.max_new_tokens for each in groups]
    cache.expected = max(cache.expected, *limits)
    cache.reserve(tree.count, longest + 1)
    slot = start
    for begun, together in itertools.groupby(groups, key=lambda group: group.begun):
        some = list(together)
        copies: dict[int, int] = {}  # origin by slot
        for number, each in enumerate(some, slot):
            if each.origin is not None:
                copies[number] = each.origin
            elif begun:
                cache.write_row(number, prefixes.states(each.key))
        if copies:
            cache.copy_rows(list(copies.values()), list(copies), begun)
        done = read(cache, [each.reading(number) for number, each in enumerate(some, slot)])
        for number, (each, each.read) in enumerate(zip(some, done, strict=True), slot):
            length = each.request.prompt_length - 1
            if each.request.keeps and length and not prefixes.length(each.key, each.prefix):
                prefixes.keep(each.key, each.prefix[:length], cache.read_row(number, length))
        slot += len(some)
    origins = [start + n for n, each in enumerate(groups) for _ in each.rows[1:]]
    if origins:
        cache.copy_rows(origins, range(slot, tree.count), longest)
    for each in groups:
        # What is prefilled once more after memory ran out is not counted: it is not of the method's making.
        job = each.rows[0].job
        if not tree.ledger.has_run(job):
            tree.ledger.count_prefill(job, *each.read)


@dataclass(slots=True)
class _Group:
    """Equal rows of a pool.

    Attributes:
        prefix: All their tokens but the newest.
        rows: The rows.
        begun: Positions that are there.
        origin: Slot of the live row that has them; ``None`` where they are kept of the prompt.
        level: The level of depth that its cells have.
        read: Positions that were read, and layers beyond those that every token takes.
    """

    prefix: tuple[int, ...]
    rows: list[WaitingRow]
    level: int
    begun: int = 0
    origin: int | None = None
    read: tuple[int, int] = (0, 0)

    @property
    def request(self) -> Request:
        return self.rows[0].job.request

    @property
    def key(self) -> tuple[str, int]:
        return self.request.document, self.level

    def reading(self, slot: int) -> Reading:
        prompt = self.request.tokens[: self.request.prompt_length]
        return Reading(slot, self.begun, self.prefix, prompt, self.level)


def _group(
    tree: Tree, level: int, prefix: tuple[int, ...], same: list[WaitingRow], prefixes: Prefixes
) -> _Group:
    """Equal rows, with the longest beginning of theirs that a live row of the pool or the prompt has."""
    job = same[0].job
    group = _Group(prefix, same, level)
    group.begun = prefixes.length(group.key, prefix)
    cells, slots = tree.live()
    mine = tree.table.tokens[same[0].cells[0], : len(prefix) + 1 - job.request.prompt_length]
    for slot in np.flatnonzero(tree.job[: tree.count] == job.index).tolist():
        cell = cells[np.searchsorted(slots, slot)]
        if tree.table.level(cell) != level:
            continue
        its = tree.table.tokens[cell, : min(len(mine), tree.table.length[cell])]
        apart = np.flatnonzero(its != mine[: len(its)])
        common = job.request.prompt_length + (int(apart[0]) if len(apart) else len(its))
        # A row that is being recursed has its newest token stored, too.
        stored = tree.position[slot] + (tree.active[slot] > 0)
        common = min(common, len(prefix), int(stored))
        if common > group.begun:
            group.begun, group.origin = common, slot
    return group


def _once_per_document(groups: list[_Group]) -> list[_Group]:
    """Lets the first of several requests of a document that begin together run its prompt for all."""
    fresh: set[tuple[str, int]] = set()
    for group in sorted(groups, key=lambda group: group.begun):
        request = group.request
        if not group.begun and request.keeps:
            if group.key in fresh:
                group.begun = request.prompt_length - 1
            fresh.add(group.key)
    return sorted(groups, key=lambda group: group.begun)


def read_layers(stack: LayerStack) -> ReadRows:
    """Reads rows by a stack of layers, in chunks."""

    def read(cache: KVCache, rows: Sequence[Reading]) -> list[tuple[int, int]]:
        begun, prefixes = rows[0].begun, [row.prefix for row in rows]
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
                start = rows[0].slot + first
                running = PrefillPass(cache, slice(start, start + len(some)), column, queries)
                stack.forward(running, tokens, positions)
        return [(len(prefix) - begun, 0) for prefix in prefixes]

    return read
