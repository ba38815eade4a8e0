"""The shared pool of comparing processes: started when needed, used from any thread, gone with the host.

Processes are launched with pipes and speak JSON lines. ``multiprocessing`` is not used: its spawn imports
the host's main module again, which needs an ``if __name__`` guard, and its fork would copy an accelerator's
state. Each worker has one job in flight, so one that dies takes nothing with it but that job.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

WALL_SECONDS = 2.5
"""For one try of one job; two tries and two starts stay below ten seconds."""
START_SECONDS = 60.0
JOBS_PER_WORKER = 4000
RECYCLE_BYTES = 600 << 20
JOBS_WORTH_A_WORKER = 6
"""A second worker takes a second to start: only for so many waiting jobs each."""

_BOOTSTRAP = """\
import sys
sys.path[:] = [path for path in sys.path if path]  # no module of the working directory
import json
sys.path[:] = json.loads(sys.stdin.readline())
from eglr_selectors.grading.worker import main
main()
"""


def _environment() -> dict[str, str]:
    """The host's variables without those that steer Python; one hash seed, as sympy's order depends on it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    home = {"PYTHONHOME": os.environ["PYTHONHOME"]} if "PYTHONHOME" in os.environ else {}
    return {**kept, **home, "PYTHONHASHSEED": "0", "LM_EVAL_EGLR_AUTOLOAD": "0"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a job: ``equal`` is ``None`` if nothing did; ``reason`` then says why not."""

    equal: bool | None
    reason: str


class _Worker:
    def __init__(self) -> None:
        # A session of its own keeps the terminal's Ctrl-C away.
        self.process = subprocess.Popen(
            [sys.executable, "-s", "-c", _BOOTSTRAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env=_environment(),
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.job: int | None = None
        self.ready = False
        self.served = 0
        self.deadline = time.monotonic() + START_SECONDS
        self.peak = 0
        self._buffer = b""
        self._write([str(path) or os.getcwd() for path in sys.path])

    def start_job(self, number: int, gold: str, answer: str) -> None:
        self.job = number
        self.deadline = time.monotonic() + WALL_SECONDS
        self._write({"id": number, "gold": gold, "answer": answer})

    def read(self) -> list[dict]:
        """Returns the records that have come; raises ``EOFError`` if the process has ended."""
        data = os.read(self.stdout.fileno(), 1 << 16)
        if not data:
            raise EOFError
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def detach(self) -> None:
        """Closes the pipes and leaves the process alone: it belongs to another process after a fork."""
        self.stdin.close()
        self.stdout.close()

    def end(self) -> None:
        self.process.kill()
        self.detach()
        self.process.wait()

    @property
    def should_recycle(self) -> bool:
        return self.served >= JOBS_PER_WORKER or self.peak > RECYCLE_BYTES

    def _write(self, record: object) -> None:
        # A broken pipe is seen as the end of the output.
        with contextlib.suppress(BrokenPipeError):
            self.stdin.write(json.dumps(record).encode() + b"\n")


class WorkerPool:
    """Comparing processes that calls from any thread share."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._idle: list[_Worker] = []
        self._lent = 0
        self._free = threading.Condition()

    def run(self, jobs: Sequence[tuple[str, str]]) -> list[Reply]:
        """Compares (gold, answer) pairs; a job whose worker dies is tried once more, then given up."""
        if not jobs:
            return []
        workers = self._acquire(len(jobs))
        try:
            return _run(jobs, workers)
        finally:
            # After an exception, a worker may still be at a job whose reply nobody would read.
            for worker in workers:
                if worker is not None and (worker.job is not None or worker.should_recycle):
                    worker.end()
            with self._free:
                self._lent -= len(workers)
                self._idle += [w for w in workers if w is not None and w.process.returncode is None]
                self._free.notify_all()

    def close(self) -> None:
        """Ends the idle workers."""
        with self._free:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def detach(self) -> None:
        """Drops workers that belong to the process this one was forked from."""
        for worker in self._idle:
            worker.detach()

    def _acquire(self, jobs: int) -> list[_Worker | None]:
        """Waits for one place at least; ``None`` is a place whose worker is still to be started."""
        wanted = min(self.size, 1 + jobs // JOBS_WORTH_A_WORKER)
        with self._free:
            self._free.wait_for(lambda: self._lent < self.size)
            places = min(wanted, self.size - self._lent)
            self._lent += places
            return [self._idle.pop() if self._idle else None for _ in range(places)]


def _run(jobs: Sequence[tuple[str, str]], workers: list[_Worker | None]) -> list[Reply]:
    replies: list[Reply | None] = [None] * len(jobs)
    waiting = deque(range(len(jobs)))
    tries = [0] * len(jobs)
    failed_starts = 0
    with selectors.DefaultSelector() as poll:
        for place, worker in enumerate(workers):
            if worker is not None:
                poll.register(worker.stdout, selectors.EVENT_READ, place)

        def drop(place: int) -> None:
            worker = workers[place]
            assert worker is not None
            poll.unregister(worker.stdout)
            worker.end()
            workers[place] = None

        def fail_job(place: int, reason: str) -> None:
            """Ends a worker that died or has to; its job is tried once more."""
            nonlocal failed_starts
            worker = workers[place]
            assert worker is not None
            job, ready = worker.job, worker.ready
            drop(place)
            if job is not None:
                if tries[job] < 2:
                    waiting.appendleft(job)
                else:
                    replies[job] = Reply(None, reason)
            elif not ready:
                failed_starts += 1

        while waiting or any(worker is not None and worker.job is not None for worker in workers):
            if failed_starts > 2:
                return [reply or Reply(None, "no worker could be started") for reply in replies]
            for place, worker in enumerate(workers):
                if not waiting:
                    break
                if worker is None:
                    worker = workers[place] = _Worker()
                    poll.register(worker.stdout, selectors.EVENT_READ, place)
                elif worker.process.poll() is not None and worker.job is None and worker.ready:
                    drop(place)  # it died while idle, which is no fault of the next job
                elif worker.ready and worker.job is None:
                    job = waiting.popleft()
                    tries[job] += 1
                    worker.start_job(job, *jobs[job])
            now = time.monotonic()
            active = [w for w in workers if w is not None and (w.job is not None or not w.ready)]
            timeout = max(0.0, min((w.deadline for w in active), default=now) - now)
            for key, _ in poll.select(timeout):
                worker = workers[key.data]
                assert worker is not None
                try:
                    records = worker.read()
                except (EOFError, OSError, ValueError):
                    fail_job(key.data, "the worker died")
                    continue
                for record in records:
                    if "failed" in record:
                        raise RuntimeError(f"grading worker: {record['failed']}")
                    if "ready" in record:
                        worker.ready = True
                        continue
                    assert record["id"] == worker.job
                    replies[record["id"]] = Reply(
                        record.get("equal"), record.get("ungraded") or record.get("reason", "")
                    )
                    worker.job = None
                    worker.served += 1
                    worker.peak = record["bytes"]
                    if worker.should_recycle:
                        drop(key.data)
                        break
            now = time.monotonic()
            for place, worker in enumerate(workers):
                if (
                    worker is not None
                    and now > worker.deadline
                    and (worker.job is not None or not worker.ready)
                ):
                    fail_job(place, "time")
    return [reply or Reply(None, "lost") for reply in replies]


_pool: WorkerPool | None = None
_pool_lock = threading.Lock()


def shared_pool() -> WorkerPool:
    """Returns the pool of this process, made on the first call."""
    global _pool
    with _pool_lock:
        if _pool is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            _pool = WorkerPool(size=max(1, min(4, cores)))
        return _pool


def close_workers() -> None:
    """Ends the idle workers of this process now; they are started again when needed."""
    if _pool is not None:
        _pool.close()


def _after_fork() -> None:
    global _pool, _pool_lock
    if _pool is not None:
        _pool.detach()
    _pool, _pool_lock = None, threading.Lock()


atexit.register(close_workers)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
