"""Who gets a row: rows that were preempted, then requests that have not begun.

There is one mechanism of waiting. A row that has no slot keeps its tokens and goes on before anything begins;
what it costs is that its tokens are read again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from lm_eval_eglr.decoding.request import Job, Request, WaitingRow
from lm_eval_eglr.decoding.tree import Tree

MIN_SAMPLES = 4  # requests that are done before anything is concluded from them
MARGIN = 1.2  # rows that are reserved over rows that were needed

Poll = Callable[[], Request | None]
"""Asked for the next request; ``None`` if there is none now. There may be one later."""


class RowEstimator:
    """Rows that a request's cells need at a time.

    Cells share a row until they draw apart and end at different times, so a request that had a row reserved
    for each of its cells would leave most of them empty. The mean over requests that are done is a good guess
    for many of them at once; rows that do not fit are preempted, and the cost is one prefill.
    """

    def __init__(self) -> None:
        self._requests = 0
        self._rows = 0
        self._cells = 0

    def record(self, rows: int, cells: int) -> None:
        """Takes in a request that is done: its rows, and its cells, both summed over its passes."""
        self._requests += 1
        self._rows += rows
        self._cells += cells

    def estimate(self, cells: int) -> int:
        """Rows to reserve for a request of so many cells, at least one."""
        if self._requests < MIN_SAMPLES:
            return cells
        return min(cells, math.ceil(MARGIN * cells * self._rows / self._cells))


class Scheduler:
    """Gives out rows as room is made.

    Requests are asked for one ahead, so that memory does not grow with their number.

    Attributes:
        limit: Most rows at once; fewer after memory ran out.
    """

    def __init__(self, poll: Poll, max_rows: int, share: bool) -> None:
        """Asks ``poll`` for requests, none of which may need more than ``max_rows`` rows.

        Args:
            poll: Asked as far as there is room.
            max_rows: Most rows at once.
            share: Whether the cells of a request begin as one row.
        """
        self.limit = max_rows
        self._poll = poll
        self._max_rows = max_rows
        self._share = share
        self._next: Request | None = None
        self._taken = 0
        self._waiting: deque[list[WaitingRow]] = deque()  # rows of a bundle are placed together
        self._estimator = RowEstimator()

    def preempt(self, rows: Sequence[WaitingRow]) -> None:
        """Takes rows that go on before anything else, in their order.

        All rows of a request that cannot wait for each other become one bundle.
        """
        bundles: dict[int, list[WaitingRow]] = {}
        for number, row in enumerate(rows):
            key = -1 - number if row.job.request.is_preemptible else row.job.index
            bundles.setdefault(key, []).append(row)
        self._waiting.extendleft(reversed(bundles.values()))

    def record(self, job: Job) -> None:
        """Learns from a job that is done how many rows one needs."""
        self._estimator.record(job.row_passes, job.passes * job.request.rows)

    def admit(self, tree: Tree) -> list[WaitingRow]:
        """The rows that there is room for.

        A request whose rows can wait for each other is let in where those alive are likely to leave room for
        one of its rows; what the others of its cells need when they draw apart may have to wait, and goes on
        before another request begins. Any other is let in if there is room for all of it. A request too large
        for an empty engine is scheduled anyway: waiting would not help.

        Raises:
            ValueError: If a request needs more rows than there ever may be.
        """
        found: list[WaitingRow] = []
        try:
            self._admit(tree, found)
        except BaseException:
            self.preempt(found)
            raise
        return found

    def _admit(self, tree: Tree, found: list[WaitingRow]) -> None:
        """Adds the rows that there is room for to ``found``."""
        room = self.limit - tree.count
        while self._waiting:
            needed = len(self._waiting[0])
            if needed > room and (tree.count or found):
                return
            found += self._waiting.popleft()
            room -= needed
        if room < 1 and (tree.count or found):
            return
        if self._peek() is None:
            return
        taken = sum(
            min(self._reserved(job.request), job.live + job.branches_left) for job in tree.jobs if job
        )
        while not self._waiting and (request := self._peek()) is not None:
            others = any(job and job.request.document != request.document for job in tree.jobs)
            if request.pool_rows >= self.limit and others and (tree.count or found):
                break  # a batch of one pool is one prompt's, whatever part of the pool is asked for
            reserved = self._reserved(request)
            # One that fills the batch is decoded alone: then nothing that is computed depends on others.
            in_parts = request.is_preemptible and request.rows < self.limit
            needed = 1 if in_parts else reserved
            if needed > min(room, self.limit - taken) and (tree.count or found):
                break
            rows = tree.begin(request, self._taken)
            self._taken += 1
            self._next = None
            fitting = rows[: max(1, room)] if in_parts else rows
            found += fitting
            self._waiting.extend([row] for row in rows[len(fitting) :])
            room -= len(fitting)
            taken += reserved

    def _reserved(self, request: Request) -> int:
        """Rows that are kept for a request: all it may need, unless its parts can wait for each other.

        All, too, where that is all there is: then pools are decoded one by one, each as if it were alone.
        """
        if not request.is_preemptible or not self._share or request.rows >= self.limit:
            return request.rows
        return self._estimator.estimate(request.rows)

    def _peek(self) -> Request | None:
        if self._next is None:
            self._next = self._poll()
        if self._next is not None and self._next.rows > self._max_rows:
            raise ValueError(f"max_rows={self._max_rows}: a request has {self._next.rows} cells")
        return self._next
