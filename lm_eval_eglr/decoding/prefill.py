"""Filling the cache with what comes before the newest token of rows that begin or go on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.model.layer_stack import LayerStack
from lm_eval_eglr.decoding.model.passes import PrefillPass
from lm_eval_eglr.decoding.request import Request, WaitingRow
from lm_eval_eglr.decoding.tree import Tree

PREFILL_CHUNK = 512  # positions per prefill pass
PREFILL_TOKENS = 8192  # rows × positions per prefill pass, which bounds its activations
SHORTEST_SHARED = 192  # tokens; the rows of a pool are quicker with a shorter prompt each than together


Key = tuple[str, int, tuple[int, ...]]
"""Of a prompt: its document, the level of depth of what is stored, its tokens but the last one."""


@dataclass(slots=True)
class _Prompt:
    """A prompt whose keys and values are there.

    Attributes:
        slot: Where, in the cache of prompts.
        kept: Whether it is kept for requests to come.
    """

    slot: int
    kept: bool


class Prompts:
    """Keys and values of prompts, each stored once: rows attend to them there, or begin with a copy.

    A prompt is there as long as rows attend to it, and where rollouts of it come in several requests, until
    their strategy releases it: all but the first go on from it. Where levels of depth do not share rows, each
    has its own. Only as many prompts are on their way at a time as have rows.

    Attributes:
        shared: Whether the rows of a pool attend to their prompt together.
        most: Most prompts that were held at once.
    """

    def __init__(self, *, shared: bool) -> None:
        """Holds none."""
        self.shared = shared
        self.most = 0
        self._held: dict[Key, _Prompt] = {}

    def are_shared(self, request: Request) -> bool:
        """Whether rows of a request attend to its prompt together: not if it is short, nor if one is all."""
        several = max(request.rows, request.pool_rows) > 1
        return self.shared and several and request.prompt_length >= SHORTEST_SHARED

    def columns_of(self, request: Request) -> int:
        """Columns that a row of a request may come to need: positions that it does not share."""
        shared = request.prompt_length - 1 if self.are_shared(request) else 0
        return request.prompt_length - shared + request.max_new_tokens

    def slot(self, key: Key) -> int | None:
        """Where a prompt is held; ``None`` if it is not."""
        return self._held[key].slot if key in self._held else None

    def add(self, key: Key, kept: bool) -> int:
        """Takes in a prompt, if it is new; returns its slot, which is the first that is free."""
        if key not in self._held:
            taken = {held.slot for held in self._held.values()}
            slot = next(slot for slot in itertools.count() if slot not in taken)
            self._held[key] = _Prompt(slot, kept)
            self.most = max(self.most, len(self._held))
        held = self._held[key]
        held.kept = held.kept or kept
        return held.slot

    def release(self, document: str) -> None:
        """Keeps a document's prompt no longer than rows attend to it."""
        for key, held in self._held.items():
            held.kept = held.kept and key[0] != document

    def forget(self, read: Collection[int]) -> None:
        """Forgets prompts that are not kept, but for those in the slots that rows attend to."""
        self._held = {key: held for key, held in self._held.items() if held.kept or held.slot in read}

    def clear(self) -> None:
        """Forgets all."""
        self._held.clear()


@dataclass(frozen=True, slots=True)
class Reading:
    """A row whose tokens are read, all but the newest.

    Attributes:
        slot: Its slot.
        begun: Positions that are there.
        prefix: All its tokens but the newest.
        prompt: The prompt, whose last token may be the newest.
        level: The level of depth that its cells have; 0 where cells of all levels share it.
        begins: Positions that are stored with the prompt, the first ones; the row's columns follow them.
        shared: Slot of the prompt in the cache of prompts; -1 for none.
    """

    slot: int
    begun: int
    prefix: tuple[int, ...]
    prompt: tuple[int, ...]
    level: int
    begins: int = 0
    shared: int = -1


ReadRows = Callable[[KVCache, Sequence[Reading]], Sequence[tuple[int, int]]]
"""Reads rows into a cache, in slots that follow each other and begun equally far; returns of each the
positions that were read, and the layers that they took beyond those that every token takes."""


@torch.no_grad()
def prefill(
    read: ReadRows, cache: KVCache, tree: Tree, admitted: Sequence[WaitingRow], prompts: Prompts
) -> None:
    """Gives rows slots and runs all their tokens but the newest, which the next pass runs.

    Equal ones of a pool are run once and copied, also where its cells do not share their rows. Prompts that
    are held are not run again, nor is what a row has in common with a live one of its pool.

    Args:
        read: Runs the model.
        cache: Holds the live rows.
        tree: The live rows. Those that are added are there even if this fails.
        admitted: The rows to add.
        prompts: What is held of prompts, and gets those that are to be.
    """
    start = tree.count
    prompts.forget({slot for slot, begins in tree.prompt[:start].tolist() if begins})
    sequences: dict[tuple[int, int, tuple[int, ...]], list[WaitingRow]] = {}
    for row in admitted:
        cell = row.cells[0]
        key = (row.job.number, tree.table.level(cell), tuple(tree.table.whole_sequence(cell)[:-1]))
        sequences.setdefault(key, []).append(row)
    groups = [_group(tree, level, prefix, same, prompts) for (_, level, prefix), same in sequences.items()]
    groups = _once_per_document(groups)
    tree.place(
        [*(each.rows[0] for each in groups), *(row for each in groups for row in each.rows[1:])],
        [*(each.place for each in groups), *(each.place for each in groups for _ in each.rows[1:])],
    )
    longest = max(len(each.prefix) - each.begins for each in groups)
    cache.expected = max(cache.expected, *(prompts.columns_of(each.request) for each in groups))
    cache.reserve(tree.count, longest + 1)
    _read_prompts(read, cache, [each for each in groups if each.reads_prompt])
    slot = start
    for _, together in itertools.groupby(groups, key=lambda group: group.begun):
        some = list(together)
        _begin(cache, range(slot, slot + len(some)), some, prompts)
        for begins, rows in itertools.groupby(some, key=lambda group: group.begins):
            same_place = list(rows)
            done = read(cache, [each.reading(number) for number, each in enumerate(same_place, slot)])
            for each, (positions, layers) in zip(same_place, done, strict=True):
                each.read = each.read[0] + positions, each.read[1] + layers
                if each.request.keeps and not begins and each.key[2] and prompts.slot(each.key) is None:
                    kept = prompts.add(each.key, True)
                    _prompts_of(cache).reserve(kept + 1, len(each.key[2]))
                    _prompts_of(cache).copy_from(cache, slot, kept, len(each.key[2]))
                slot += 1
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
        level: The level of depth that its cells have.
        begun: Positions that are there.
        origin: Slot of the live row that has them; ``None`` where they are those of the prompt.
        begins: Positions that are stored with the prompt.
        shared: Slot of the prompt; -1 for none.
        reads_prompt: Whether the prompt is new.
        read: Positions that were read, and layers beyond those that every token takes.
    """

    prefix: tuple[int, ...]
    rows: list[WaitingRow]
    level: int
    begun: int = 0
    origin: int | None = None
    begins: int = 0
    shared: int = -1
    reads_prompt: bool = False
    read: tuple[int, int] = (0, 0)

    @property
    def request(self) -> Request:
        return self.rows[0].job.request

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.request.tokens[: self.request.prompt_length]

    @property
    def key(self) -> Key:
        return self.request.document, self.level, self.prompt[:-1]

    @property
    def place(self) -> tuple[int, int]:
        return self.shared, self.begins

    def reading(self, slot: int) -> Reading:
        return Reading(slot, self.begun, self.prefix, self.prompt, self.level, self.begins, self.shared)


def _group(
    tree: Tree, level: int, prefix: tuple[int, ...], same: list[WaitingRow], prompts: Prompts
) -> _Group:
    """Equal rows, with the longest beginning of theirs that a live row of the pool or the prompt has."""
    job = same[0].job
    group = _Group(prefix, same, level)
    known = prompts.slot(group.key)
    if prompts.are_shared(job.request):
        group.shared, group.reads_prompt = prompts.add(group.key, job.request.keeps), known is None
        group.begins = group.begun = job.request.prompt_length - 1
    elif known is not None:
        group.begun = job.request.prompt_length - 1
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
    fresh: set[Key] = set()
    for group in sorted(groups, key=lambda group: group.begun):
        if not group.begun and group.request.keeps:
            if group.key in fresh:
                group.begun = len(group.key[2])
            fresh.add(group.key)
    return sorted(groups, key=lambda group: (group.begun, group.begins))


def _prompts_of(cache: KVCache) -> KVCache:
    assert cache.prompts is not None
    return cache.prompts


def _read_prompts(read: ReadRows, cache: KVCache, groups: Sequence[_Group]) -> None:
    """Reads new prompts, those side by side whose slots follow each other."""
    if not groups:
        return
    groups = sorted(groups, key=lambda group: group.shared)
    store, slots = _prompts_of(cache), [group.shared for group in groups]
    store.reserve(slots[-1] + 1, max(group.begins for group in groups))
    for _, run in itertools.groupby(range(len(groups)), key=lambda number: slots[number] - number):
        some = [groups[number] for number in run]
        readings = [Reading(each.shared, 0, each.prompt[:-1], each.prompt, each.level) for each in some]
        for group, done in zip(some, read(store, readings), strict=True):
            group.read = done
    cache.add_layers_of(store)


def _begin(cache: KVCache, slots: range, groups: Sequence[_Group], prompts: Prompts) -> None:
    """Gives rows what a live row or a prompt that is held has of them."""
    placed = list(zip(slots, groups, strict=True))
    copies = {slot: group.origin for slot, group in placed if group.origin is not None}
    if copies:
        length = max(group.begun - group.begins for group in groups)
        cache.copy_rows(list(copies.values()), list(copies), length)
    for slot, group in placed:
        held = prompts.slot(group.key)
        if group.begun > group.begins and slot not in copies and held is not None:
            cache.copy_from(_prompts_of(cache), held, slot, group.begun)


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
                shared = [row.shared for row in rows[first : first + batch]]
                here = slice(start, start + len(some))
                running = PrefillPass(cache, here, column, queries, rows[0].begins, shared)
                stack.forward(running, tokens, positions)
        return [(len(prefix) - begun, 0) for prefix in prefixes]

    return read
