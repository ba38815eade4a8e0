"""What waits for rows: rows that had to make room, then requests that have not begun."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence

from lm_eval_eglr.decoding.demand import Demand
from lm_eval_eglr.decoding.rows import Job, Request, Row


class Waiting:
    """Gives out rows as room is made.

    Requests are read from their source one ahead, so that memory does not grow with their number.
    """

    def __init__(
        self, requests: Iterable[Request], max_rows: int, share: bool, can_wait: Callable[[Request], bool]
    ) -> None:
        """Waits for ``requests``, none of which may need more than ``max_rows`` rows.

        Args:
            requests: Read as far as there is room.
            max_rows: Most rows at once.
            share: Whether the cells of a request begin as one row.
            can_wait: Whether some rows of a request can wait while others go on.
        """
        self._can_wait = can_wait
        self._source = enumerate(requests)
        self._max_rows = max_rows
        self._share = share
        self._next: tuple[int, Request] | None = None
        self._suspended: deque[Row] = deque()

    def suspend(self, rows: Sequence[Row]) -> None:
        """Takes rows that go on before anything else, in their order."""
        self._suspended.extendleft(reversed(rows))

    def withdraw(self, jobs: Container[int]) -> None:
        """Forgets the suspended rows of jobs, given by number, that begin anew."""
        self._suspended = deque(row for row in self._suspended if row.job.number not in jobs)

    def rows(self, live: Sequence[Row], limit: int, demand: Demand) -> list[Row]:
        """The rows that there is room for.

        A request whose rows can wait for each other is let in where those alive are likely to leave room for
        one of its rows; what the others of its cells need when they draw apart may have to wait, and goes on
        before another request begins. Any other is let in if there is room for all of it. What does not fit
        into an empty engine is given out all the same, since it will not fit later either.

        Args:
            live: The rows that are being decoded.
            limit: Most rows at once.
            demand: How many rows requests need.

        Raises:
            ValueError: If a request needs more rows than there ever may be.
        """
        room = limit - len(live)
        found: list[Row] = []
        while self._suspended:
            needed = 1 if self._can_wait(self._suspended[0].job.request) else len(self._suspended[0].branches)
            if needed > room and (live or found):
                return found
            found.append(self._suspended.popleft())
            room -= needed
        jobs = {id(row.job): row.job for row in (*live, *found)}
        taken = sum(
            min(self._reserved(job.request, limit, demand), job.live + job.spare) for job in jobs.values()
        )
        while not self._suspended and (request := self._peek()) is not None:
            reserved = self._reserved(request, limit, demand)
            # One that fills the batch is decoded alone: then nothing that is computed depends on others.
            in_parts = self._can_wait(request) and request.rows < limit
            needed = 1 if in_parts else reserved
            if needed > min(room, limit - taken) and (live or found):
                break
            assert self._next is not None
            rows = Job.begun(request, self._next[0]).rows(self._share)
            self._next = None
            fitting = rows[: max(1, room)] if in_parts else rows
            found += fitting
            self._suspended.extend(rows[len(fitting) :])
            room -= len(fitting)
            taken += reserved
        return found

    def _reserved(self, request: Request, limit: int, demand: Demand) -> int:
        """Rows that are kept for a request: all it may need, unless its parts can wait for each other.

        All, too, where that is all there is: then pools are decoded one by one, each as if it were alone.
        """
        if not self._can_wait(request) or not self._share or request.rows >= limit:
            return request.rows
        return demand.of(request.rows)

    def _peek(self) -> Request | None:
        if self._next is None:
            self._next = next(self._source, None)
        if self._next is None:
            return None
        request = self._next[1]
        if request.rows > self._max_rows:
            raise ValueError(f"max_rows={self._max_rows}: a request has {request.rows} cells")
        return request
