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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from eglr_selectors.grading.worker import SOFT_SECONDS

WALL_SECONDS = 2.5
"""For one job whose process uses its processor; see also :data:`BUSY_SECONDS`."""
BUSY_SECONDS = 6.0
"""For one job on a machine so busy that its process did not get its share of processor time."""
START_SECONDS = 60.0
JOBS_PER_WORKER = 4000
RECYCLE_BYTES = 600 << 20
NOT_STARTED = "no worker could be started"
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
    """What came of a job.

    Attributes:
        equal: The verdict; ``None`` if there is none.
        reason: Why, or why not.
        seconds: How long a worker was at it.
    """

    equal: bool | None
    reason: str
    seconds: float = field(default=0.0, compare=False)


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
        self.began = time.monotonic()
        self.deadline = self.began + START_SECONDS
        self.used = 0.0
        self.peak = 0
        self._buffer = b""
        self._write([str(path) or os.getcwd() for path in sys.path])

    def start_job(self, number: int, gold: str, answer: str) -> None:
        self.job = number
        self.began = time.monotonic()
        self.deadline = self.began + WALL_SECONDS
        self.used = self.processor_seconds()
        self._write({"id": number, "gold": gold, "answer": answer})

    def read(self) -> list[dict]:
        """Returns the records that have come; raises ``EOFError`` if the process has ended."""
        data = os.read(self.stdout.fileno(), 1 << 16)
        if not data:
            raise EOFError
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def processor_seconds(self) -> float:
        """Returns the processor time of the process so far; without /proc, more than any limit."""
        try:
            with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return float("inf")

    def overdue(self, now: float) -> bool:
        """Whether its job, or its start, has had its time."""
        if now <= self.deadline or (self.job is None and self.ready):
            return False
        if self.job is not None and now < self.began + BUSY_SECONDS:
            used = self.processor_seconds() - self.used
            if used < SOFT_SECONDS and not self._asleep():
                self.deadline = now + 0.2
                return False
        return True

    def _asleep(self) -> bool:
        """Whether the process waits for something, and not for a processor."""
        try:
            with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
                return stat.read().rsplit(")", 1)[1].split()[0] != "R"
        except (OSError, IndexError):
            return True

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

    def run(
        self,
        jobs: Sequence[tuple[str, str]],
        skip: Callable[[int], str] | None = None,
        done: Callable[[int, Reply], None] | None = None,
    ) -> list[Reply]:
        """Compares (gold, answer) pairs; a job whose worker dies is tried once more, then given up.

        Args:
            jobs: The pairs.
            skip: Asked by a job's index before it starts; a reason leaves the job undone.
            done: Told each reply as it comes, so that ``skip`` can know what was spent.
        """
        if not jobs:
            return []
        workers = self._acquire(len(jobs))
        try:
            return _Run(jobs, workers, skip, done).replies_to_all()
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


class _Run:
    """One call's jobs, shared out among the workers that it acquired.

    ``workers`` is changed in place: ``None`` is a place whose worker is still to be started.
    """

    def __init__(
        self,
        jobs: Sequence[tuple[str, str]],
        workers: list[_Worker | None],
        skip: Callable[[int], str] | None,
        done: Callable[[int, Reply], None] | None,
    ) -> None:
        self.jobs, self.workers = jobs, workers
        self.skip, self.done = skip, done
        self.replies: list[Reply | None] = [None] * len(jobs)
        self.waiting = deque(range(len(jobs)))
        self.tries = [0] * len(jobs)
        self.failed_starts = 0

    def replies_to_all(self) -> list[Reply]:
        """Runs until every job has a reply, or no worker can be started."""
        with selectors.DefaultSelector() as self.poll:
            for place, worker in enumerate(self.workers):
                if worker is not None:
                    self.poll.register(worker.stdout, selectors.EVENT_READ, place)
            while self.waiting or any(w is not None and w.job is not None for w in self.workers):
                if self.failed_starts > 2:
                    return [reply or Reply(None, NOT_STARTED) for reply in self.replies]
                self.start_jobs()
                for key, _ in self.poll.select(self.until_next_deadline()):
                    self.read_from(key.data)
                self.end_overdue()
        return [reply or Reply(None, "lost") for reply in self.replies]

    def start_jobs(self) -> None:
        """Gives every worker that has nothing to do a job, and starts workers where there is none."""
        for place, worker in enumerate(self.workers):
            self.leave_out_skipped()
            if not self.waiting:
                return
            if worker is None:
                worker = self.workers[place] = _Worker()
                self.poll.register(worker.stdout, selectors.EVENT_READ, place)
            elif worker.process.poll() is not None and worker.job is None and worker.ready:
                self.drop(place)  # it died while idle, which is no fault of the next job
            elif worker.ready and worker.job is None:
                job = self.waiting.popleft()
                self.tries[job] += 1
                worker.start_job(job, *self.jobs[job])

    def leave_out_skipped(self) -> None:
        while self.waiting and self.skip is not None and (reason := self.skip(self.waiting[0])):
            self.replies[self.waiting.popleft()] = Reply(None, reason)

    def until_next_deadline(self) -> float:
        now = time.monotonic()
        active = [w for w in self.workers if w is not None and (w.job is not None or not w.ready)]
        return max(0.0, min((w.deadline for w in active), default=now) - now)

    def read_from(self, place: int) -> None:
        """Takes what a worker says: that it is ready, that it cannot work at all, or a reply."""
        worker = self.workers[place]
        assert worker is not None
        try:
            records = worker.read()
        except (EOFError, OSError, ValueError):
            self.fail_job(place, "the worker died", again=True)
            return
        for record in records:
            if "failed" in record:
                raise RuntimeError(f"grading worker: {record['failed']}")
            if "ready" in record:
                worker.ready = True
                continue
            assert record["id"] == worker.job
            reason = record.get("ungraded") or record.get("reason", "")
            self.reply(record["id"], Reply(record.get("equal"), reason, time.monotonic() - worker.began))
            worker.job = None
            worker.served += 1
            worker.peak = record["bytes"]
            if worker.should_recycle:
                self.drop(place)
                return

    def end_overdue(self) -> None:
        now = time.monotonic()
        for place, worker in enumerate(self.workers):
            if worker is not None and worker.overdue(now):
                self.fail_job(place, "time", again=False)

    def fail_job(self, place: int, reason: str, *, again: bool) -> None:
        """Ends a worker that died or has to; a job that it died of is tried once more."""
        worker = self.workers[place]
        assert worker is not None
        job, ready, began = worker.job, worker.ready, worker.began
        self.drop(place)
        if job is None:
            self.failed_starts += not ready
        elif again and self.tries[job] < 2:
            self.waiting.appendleft(job)
        else:
            self.reply(job, Reply(None, reason, time.monotonic() - began))

    def reply(self, job: int, reply: Reply) -> None:
        self.replies[job] = reply
        if self.done is not None:
            self.done(job, reply)

    def drop(self, place: int) -> None:
        worker = self.workers[place]
        assert worker is not None
        self.poll.unregister(worker.stdout)
        worker.end()
        self.workers[place] = None


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
