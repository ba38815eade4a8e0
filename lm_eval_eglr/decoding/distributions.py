"""The distributions that a step draws from, and which of them each cell has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lm_eval_eglr.decoding.items import Item
from lm_eval_eglr.decoding.rows import Place, Row


@dataclass(slots=True)
class Distributions:
    """The distributions of a step: the plain one of each row first, then those of spans of gated rows."""

    logprobs: Tensor  # [entries, vocab]
    entropies: list[float]  # per entry, nats; NaN where the model gave no finite distribution
    index: dict[tuple[int, int], int]  # entry by number of the row and span
    items: list[Item[Row]]  # those of the entries behind the plain ones
    ties: set[Place] = field(default_factory=set)  # places whose draw rounding decides
    changed: set[Place] = field(default_factory=set)  # places that would have drawn otherwise from p_0

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Distributions:
        """Gathers what is known of the next token of ``rows``, all of it."""
        plain: list[Tensor] = []
        entropies: list[float] = []
        items: list[Item[Row]] = []
        index: dict[tuple[int, int], int] = {}
        for number, row in enumerate(rows):
            assert row.pending is not None
            plain.append(row.pending.plain)
            entropies.append(row.pending.entropy)
            index[number, 0] = number
            for item in row.pending.items:
                index[number, item.span] = len(rows) + len(items)
                items.append(item)
        refined = [item.logprobs for item in items if item.logprobs is not None]
        entropies += [item.entropy for item in items]
        return cls(torch.stack(plain + refined), entropies, index, items)

    def entry(self, row: int, span: int) -> int:
        """Which distribution a cell draws from: its span's, or the plain one where it was not recursed."""
        return self.index.get((row, span), self.index[row, 0])

    def divergences(self, entry: int) -> list[float]:
        """KL(p_k ‖ p_{k−1}) of each iteration of one distribution, nats; none of a plain one."""
        item = entry - len(self.logprobs) + len(self.items)
        return [] if item < 0 else self.items[item].divergences

    def converged(self, entry: int) -> bool:
        """Whether the recursion of one distribution met the tolerance; false of a plain one."""
        item = entry - len(self.logprobs) + len(self.items)
        return item >= 0 and self.items[item].converged
