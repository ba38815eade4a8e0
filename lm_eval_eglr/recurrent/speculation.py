"""Self-speculative decoding: few iterations draft tokens, all iterations verify them in one pass.

Source: arXiv 2502.05171, section on self-speculation; that the drafts' iterations are the first ones of the
verification and are not made again is in it, too. Here a draft is drawn with the very uniform that its cell
will use, and what is kept are the verified distributions: when the engine comes to a token that was drafted,
the distribution after it is there. Every distribution is that of all iterations after the true tokens, so the
rollouts are those without drafts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lm_eval_eglr.decoding.cells import CellTable
from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.model.runner import Batch
from lm_eval_eglr.decoding.numerics import on_device
from lm_eval_eglr.decoding.sampling import BLOCK, draw_tokens, warpers
from lm_eval_eglr.recurrent.runner import RecurrentOutput, RecurrentRunner, output_of
from lm_eval_eglr.recurrent.stack import RecurrentStack, Tokens


@dataclass(slots=True)
class _Verified:
    """What lies ahead of a row: drafted tokens, and the distribution after each.

    Attributes:
        slot: The row's slot, where their keys and values are.
        position: Position of the first token.
        tokens: The tokens.
        logprobs: ln p after each, ``[tokens, vocab]``.
    """

    slot: int
    position: int
    tokens: list[int]
    logprobs: Tensor

    def after(self, slot: int, position: int, token: int) -> _Verified | None:
        """The same if it says what comes after a token, else ``None``."""
        here = slot == self.slot and position == self.position and bool(self.tokens)
        return self if here and token == self.tokens[0] else None

    def rest(self) -> _Verified:
        """What lies ahead of the next token."""
        return _Verified(self.slot, self.position + 1, self.tokens[1:], self.logprobs[1:])


class DraftingRunner(RecurrentRunner):
    """Answers from what was verified ahead, where the drawn token was drafted; else drafts and verifies."""

    def __init__(self, stack: RecurrentStack, cache: KVCache) -> None:
        super().__init__(stack, cache)
        assert stack.config.draft_recurrences is not None
        self._few = stack.config.draft_recurrences
        self._ahead: dict[int, _Verified] = {}

    def __call__(self, batch: Batch) -> RecurrentOutput:
        """Runs the rows whose distributions are not there yet."""
        stack, cells = self._stack, batch.first_cells
        levels = batch.table.span[cells]
        # No further than the length limit, which the context has cut.
        left = batch.table.limit[cells] - batch.table.length[cells] - 1
        reach = np.minimum(stack.config.draft_tokens, left)
        self._reserve(batch.live, batch.width + int(reach.max(initial=0)))
        before, self._ahead = self._ahead, {}
        rows: list[Tensor | None] = [None] * len(cells)
        # What a row did not run is taken from what every token is charged.
        work = np.tile([-stack.base_layers, -1], (len(cells), 1))
        for row, cell in enumerate(cells.tolist()):
            known = before.get(cell)
            token = int(batch.slots[row]), int(batch.positions[row]), int(batch.tokens[row])
            verified = None if known is None else known.after(*token)
            if verified is not None:
                rows[row] = verified.logprobs[0]
                self._ahead[cell] = verified.rest()
                stack.accepted += 1
        missing = np.array([row for row, known in enumerate(rows) if known is None], np.int64)
        drafts = (levels[missing] > self._few) & (reach[missing] > 0)
        for places, count in self._groups(missing, drafts, reach):
            tokens = Tokens.causal(
                batch.tokens[places], batch.positions[places], batch.slots[places], levels[places]
            )
            if count:
                logprobs = self._verify(batch.table, cells[places], tokens, count)
                work[places] += self._work(levels[places], count)
            else:
                logprobs, made = stack.run(self._cache, tokens, np.arange(len(places)))
                work[places] += stack.work(made) + np.array([stack.base_layers, 1])
            for row, line in zip(places.tolist(), logprobs, strict=True):
                rows[row] = line
        found = torch.stack([line for line in rows if line is not None])
        zeros = np.zeros(len(cells))
        return output_of(found, work, levels, zeros, zeros, zeros)

    @staticmethod
    def _groups(missing: np.ndarray, drafts: np.ndarray, reach: np.ndarray) -> list[tuple[np.ndarray, int]]:
        """Rows that run together: those that draft equally many tokens, and those that draft none."""
        counts = np.where(drafts, reach[missing], 0)
        return [(missing[counts == count], int(count)) for count in np.unique(counts)]

    def _verify(self, table: CellTable, cells: np.ndarray, tokens: Tokens, count: int) -> Tensor:
        """Drafts ``count`` tokens after each row's newest, verifies them, and keeps what lies ahead.

        Returns:
            ln p after the newest tokens, ``[rows, vocab]``.
        """
        stack, cache, few = self._stack, self._cache, self._few
        drafted, embedded, states = [tokens], [], []
        for step in range(count + 1):
            newest = drafted[-1]
            with stack.passing(cache, newest) as running:
                given = stack.embed(running, newest)
                begun = stack.recurrent.begin(given, running.columns)
                made = stack.iterate(running, given, begun, np.full(len(cells), few))
                embedded.append(given)
                states.append(made.states)
                if step < count:
                    everyone = torch.arange(len(cells), device=stack.device)
                    logprobs = stack.predict(running, made.states, everyone)
                    ids = draw_ahead(table, cells, step, logprobs)
                    drafted.append(Tokens.causal(ids, newest.positions + 1, newest.slots, newest.levels))
        names = ("ids", "positions", "slots", "levels", "seen")
        together = Tokens(*(np.concatenate([getattr(each, name) for each in drafted]) for name in names))
        with stack.passing(cache, together) as running:
            made = stack.iterate(running, torch.cat(embedded), torch.cat(states), together.levels, first=few)
            everyone = torch.arange(len(together.ids), device=stack.device)
            logprobs = stack.predict(running, made.states, everyone)
        verified = logprobs.view(count + 1, len(cells), -1)
        stack.drafted += count * len(cells)
        ids = np.stack([each.ids for each in drafted[1:]])  # [drafts, rows]
        for row, cell in enumerate(cells.tolist()):
            self._ahead[cell] = _Verified(
                int(tokens.slots[row]),
                int(tokens.positions[row]) + 1,
                ids[:, row].tolist(),
                verified[1:, row],
            )
        return verified[0]

    def _work(self, levels: np.ndarray, count: int) -> np.ndarray:
        """Layers and heads of drafting and verifying ``count`` tokens beside the newest, ``[rows, 2]``."""
        adapter = self._stack.recurrent
        layers = (count + 1) * (adapter.outer_layers + adapter.core_layers * levels)
        heads = np.full(len(levels), 2 * count + 1)
        return np.stack([layers + count * adapter.predict_layers, heads], -1)


def draw_ahead(table: CellTable, cells: np.ndarray, ahead: int, logprobs: Tensor) -> np.ndarray:
    """What cells would draw so many tokens after their next one, from distributions ``[cells, vocab]``."""
    tokens = logprobs.argmax(-1)
    temperatures, truncations = table.temperature[cells], table.truncation[cells]
    for kind in np.unique(truncations[temperatures > 0]):
        places = np.flatnonzero((truncations == kind) & (temperatures > 0))
        index = on_device(places, logprobs.device)
        uniforms = np.array([_uniform(table, cell, ahead) for cell in cells[places].tolist()])
        drawn, _, _ = draw_tokens(
            logprobs[index],
            on_device(temperatures[places], logprobs.device).to(logprobs),
            on_device(uniforms[:, None], logprobs.device),
            warpers(table.truncations[int(kind)]),
        )
        tokens[index] = drawn[:, 0]
    return tokens.cpu().numpy()


def _uniform(table: CellTable, cell: int, ahead: int) -> float:
    """The uniform of a cell's draw."""
    number = int(table.length[cell]) + ahead
    return float(table.line(cell).stream.block(number // BLOCK)[number % BLOCK])
