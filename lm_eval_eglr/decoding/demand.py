"""How many rows a request takes at a time, learnt from those that are done."""

from __future__ import annotations

import math

ENOUGH = 4  # requests that are done before anything is taken from them
MARGIN = 1.2  # rows that are reserved over rows that were needed


class Demand:
    """Rows that a request's cells need at a time.

    Cells share a row until they draw apart and end at different times, so a request that had a row reserved
    for each of its cells would leave most of them empty. The mean over requests that are done is a good guess
    for many of them at once; rows that it leaves no room for wait, and lose nothing but a prefill.
    """

    def __init__(self) -> None:
        self._requests = 0
        self._rows = 0
        self._cells = 0

    def learn(self, rows: int, cells: int) -> None:
        """Takes in a request that is done: its rows, and its cells, both summed over its passes."""
        self._requests += 1
        self._rows += rows
        self._cells += cells

    def of(self, cells: int) -> int:
        """Rows to reserve for a request of so many cells, at least one."""
        if self._requests < ENOUGH:
            return cells
        return min(cells, math.ceil(MARGIN * cells * self._rows / self._cells))
