"""Requests that wait for rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from lm_eval_eglr.decoding.rows import Job, Request


class Waiting:
    """Reads requests from their source one ahead, so that memory does not grow with their number."""

    def __init__(self, requests: Iterable[Request], max_rows: int) -> None:
        self._source = enumerate(requests)
        self._max_rows = max_rows
        self._next: deque[tuple[int, Request]] = deque()

    def next_job(self, room: int) -> Job | None:
        """The next request as a job if its cells, and what they may branch into, fit into ``room`` rows."""
        if not self._next:
            self._next.extend(pair for pair in [next(self._source, None)] if pair is not None)
        if not self._next:
            return None
        number, request = self._next[0]
        if request.rows > self._max_rows:
            raise ValueError(f"max_rows={self._max_rows}: a request has {request.rows} cells")
        if request.rows > room:
            return None
        self._next.popleft()
        cells = len(request.cells)
        return Job(request, number, live=cells, spare=request.rows - cells)
