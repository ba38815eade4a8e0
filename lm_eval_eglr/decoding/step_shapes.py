"""The few shapes that decode passes are padded to, so that they can be captured."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from lm_eval_eglr.decoding.batch import Batch

# Sizes that rows and columns are padded to; beyond the last one, multiples of a quarter of it.
ROWS = (8, 16, 32, 48, 64, 96, 128, 192, 256)
COLUMNS = (128, 256, 384, 512, 768, 1024)


class Shape(NamedTuple):
    """What a graph is captured for; the first three are upper bounds.

    Attributes:
        live: Rows of the cache that are read.
        rows: Rows and items that run.
        width: Columns that are read.
        most: Items that may attend to one row; 0 where all live rows run and nothing else.
        bypassed: Layers that are left out, where items run alone.
        spans: Spans at which items may join.
    """

    live: int
    rows: int
    width: int
    most: int
    bypassed: int
    spans: tuple[int, ...]

    @classmethod
    def of(cls, batch: Batch, recursed: bool, depth: int, max_rows: int) -> Shape:
        """The smallest shape that a pass fits into.

        Args:
            batch: What is in the pass.
            recursed: Whether some of it are items.
            depth: Number of the model's layers.
            max_rows: Most rows of the cache, which was sized to the memory that there is.
        """
        spans = tuple(sorted(batch.spans))
        live = min(_padded(batch.live, ROWS), max(batch.live, max_rows))
        rows = _padded(len(batch.tokens), ROWS)
        if not recursed:
            rows = live
        elif batch.starting:
            rows = max(live, rows)  # nearly always so, and fewer shapes
        return cls(
            live,
            rows,
            _padded(batch.width, COLUMNS),
            # A row waits for its own spans and does not run beside them, so there are no more than these.
            max(1, len(spans)) if recursed else 0,
            0 if batch.starting else depth - spans[-1],
            spans,
        )

    def covers(self, other: Shape) -> bool:
        """Whether a pass of the other shape can run in this one."""
        fits = self.live >= other.live and self.rows >= other.rows and self.width >= other.width
        able = self.most == other.most or not other.most
        return fits and able and self.bypassed == other.bypassed and self.spans == other.spans

    def size(self) -> tuple[int, int]:
        """What costs most comes first."""
        return self.live * self.width, self.rows


def _padded(count: int, sizes: tuple[int, ...]) -> int:
    """The next of the sizes, or of the multiples of a quarter of the last one."""
    place = bisect_left(sizes, count)
    if place < len(sizes):
        return sizes[place]
    step = sizes[-1] // 4
    return -(-count // step) * step
