"""Workers: limits, crashes, many threads, no trace in the host and none left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from eglr_selectors.grading import (
    UngradedError,
    Verdict,
    grade,
    grade_many,
    math_verify_queue,
    workers,
)
from eglr_selectors.grading.math_verify_queue import _asked

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers need POSIX pipes")

# An integral is beyond the reader, so math-verify decides.
INTEGRAL = (r"\int_0^1 x dx", r"\frac12")
UNEQUAL = (r"\int_0^1 x dx", r"\frac13")

PATCHED = """\
import json, os, sys, time
sys.path[:] = json.loads(sys.stdin.readline())
from eglr_selectors.grading import math_verify_bridge, worker
ACTS = {
    "die": lambda: os._exit(3),
    "spin": lambda: [0 for _ in iter(int, 1)],
    "hold": lambda: 7 ** (10**9),
    "fill": lambda: [0] * (1 << 30),
    "print": lambda: print("x"),
    "sleep": lambda: time.sleep(100),
}
math_verify_bridge.equal = lambda gold, answer: (ACTS.get(answer, int)(), (True, "patched"))[1]
worker.main()
"""
WITHOUT_SYMPY = """\
import json, sys
sys.path[:] = json.loads(sys.stdin.readline())
from eglr_selectors.grading import worker
sys.modules["sympy"] = None
worker.main()
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def patched_pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[workers.WorkerPool]:
    monkeypatch.setattr(workers, "_BOOTSTRAP", PATCHED)
    pool = workers.WorkerPool(size=1)
    yield pool
    pool.close()


@pytest.mark.parametrize(("job", "reason"), [("die", "died"), ("spin", "time"), ("fill", "memory")])
def test_a_failing_job_is_given_up_and_its_neighbours_are_not(
    patched_pool: workers.WorkerPool, job: str, reason: str
) -> None:
    replies = patched_pool.run([("1", "good"), ("1", job), ("1", "print"), ("1", "good")])
    assert [reply.equal for reply in replies] == [True, None, True, True]
    assert reason in replies[1].reason


def test_a_job_that_waits_is_ended_by_the_wall_clock(
    patched_pool: workers.WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "WALL_SECONDS", 1.0)
    assert patched_pool.run([("1", "sleep"), ("1", "good")]) == [
        workers.Reply(None, "time"),
        workers.Reply(True, "patched"),
    ]


def test_an_interrupted_call_leaves_no_worker_at_its_job(patched_pool: workers.WorkerPool) -> None:
    patched_pool.run([("1", "good")])
    busy = patched_pool._idle[0].process
    # A shell lets what it runs in the background ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            patched_pool.run([("1", "sleep")])
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert busy.returncode is not None
    assert [reply.equal for reply in patched_pool.run([("1", "good")] * 2)] == [True, True]


def test_a_host_that_holds_a_model_keeps_its_workers(patched_pool: workers.WorkerPool) -> None:
    """Linux hands the peak of a process on to those that it starts; a worker has not used that memory."""
    model = bytearray(b"x") * (workers.RECYCLE_BYTES + (64 << 20))
    served = []
    for _ in range(2):
        patched_pool.run([("1", "good")])
        [worker] = patched_pool._idle
        served.append(worker.process.pid)
    assert served[0] == served[1]
    assert worker.peak < workers.RECYCLE_BYTES < len(model)


def test_a_worker_is_replaced_after_its_share_of_jobs(
    patched_pool: workers.WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "JOBS_PER_WORKER", 2)
    assert [reply.equal for reply in patched_pool.run([("1", "good")] * 3)] == [True] * 3
    [second] = patched_pool._idle
    assert second.served == 1


def test_workers_that_cannot_start_leave_the_jobs_ungraded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_BOOTSTRAP", "raise SystemExit(1)")
    pool = workers.WorkerPool(size=1)
    assert pool.run([INTEGRAL, UNEQUAL]) == [workers.Reply(None, "no worker could be started")] * 2
    assert not pool._idle


def test_a_worker_without_sympy_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_BOOTSTRAP", WITHOUT_SYMPY)
    pool = workers.WorkerPool(size=1)
    with pytest.raises(RuntimeError, match=r"grading worker: \w*Error: .*sympy"):
        pool.run([INTEGRAL])
    pool.close()


def test_a_forgotten_worker_is_not_killed_and_ends_with_its_input(patched_pool: workers.WorkerPool) -> None:
    patched_pool.run([("1", "good")])
    [worker] = patched_pool._idle
    patched_pool.detach()
    assert worker.process.wait(timeout=10) == 0


@pytest.mark.slow
def test_a_job_that_holds_the_interpreter_is_killed(patched_pool: workers.WorkerPool) -> None:
    replies = patched_pool.run([("1", "hold"), ("1", "good")])
    assert [reply.equal for reply in replies] == [None, True]


def test_ungraded_is_returned_counted_and_raised_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        workers.WorkerPool, "run", lambda self, jobs, *rest: [workers.Reply(None, "time") for _ in jobs]
    )
    pairs = [("1", "1"), (r"\int_0^2 x dx", "2"), ("1", None)]
    _asked.clear()
    verdicts = grade_many(pairs)
    assert [verdict.correct for verdict in verdicts] == [True, None, False]
    assert [verdict.outcome for verdict in verdicts] == ["correct", "ungraded", "no_answer"]
    with pytest.raises(UngradedError, match="1 of 3 answers ungraded: time") as raised:
        grade_many(pairs, on_ungraded="raise")
    assert raised.value.verdicts == verdicts
    assert not _asked, "an ungraded pair has no verdict to keep"


def test_what_math_verify_said_is_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def run(pool: workers.WorkerPool, jobs: Sequence[object], *rest: object) -> list[workers.Reply]:
        asked.extend(jobs)
        return [workers.Reply(True, "") for _ in jobs]

    monkeypatch.setattr(workers.WorkerPool, "run", run)
    monkeypatch.setattr(math_verify_queue, "_MAX_KEPT", 2)
    _asked.clear()
    integrals = [rf"\int_0^{limit} x dx" for limit in (2, 2, 4, 6, 2)]
    assert all(grade(integral, "2").correct for integral in integrals)
    assert len(asked) == 4, "the second is known, the last one forgotten"
    _asked.clear()


def test_any_thread_may_grade() -> None:
    found: list[list[Verdict]] = []
    threads = [
        threading.Thread(target=lambda: found.append(grade_many([INTEGRAL, UNEQUAL]))) for _ in range(6)
    ]
    for thread in threads:
        _asked.clear()
        thread.start()
    for thread in threads:
        thread.join()
    assert [[verdict.correct for verdict in verdicts] for verdicts in found] == [[True, False]] * 6


def test_grading_inside_asyncio() -> None:
    async def both() -> list[Verdict]:
        _asked.clear()
        return [grade(*INTEGRAL), await asyncio.to_thread(grade, *UNEQUAL)]

    assert [verdict.correct for verdict in asyncio.run(both())] == [True, False]


def test_the_host_keeps_its_signals_alarms_and_modules() -> None:
    code = """
import logging, signal, sys, warnings
signal.setitimer(signal.ITIMER_REAL, 1000)
numbers = (signal.SIGALRM, signal.SIGCHLD, signal.SIGPROF, signal.SIGINT)
before = [signal.getsignal(number) for number in numbers]
filters, level = list(warnings.filters), logging.root.manager.disable
from eglr_selectors.grading import grade
assert "mpmath" not in sys.modules
assert grade("1", "1").correct and grade("2", "x=2").correct
assert grade(r"\\int_0^1 x dx", r"\\frac12").correct
after = [signal.getsignal(number) for number in numbers]
assert before == after and signal.getitimer(signal.ITIMER_REAL)[0] > 900
assert filters == list(warnings.filters) and level == logging.root.manager.disable
assert not {"sympy", "math_verify", "torch", "lm_eval", "multiprocessing"} & set(sys.modules)
"""
    # From standard input: there is no main module that a spawned process could import again.
    result = subprocess.run([sys.executable, "-"], input=code, text=True, env=_environment(), timeout=60)
    assert result.returncode == 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("busy", [False, True])
def test_workers_are_gone_when_the_host_is_killed(busy: bool) -> None:
    hang = "threading.Thread(target=pool.run, args=([('1', '9.5^{9.5^{9.5}}')],)).start(); time.sleep(0.2)"
    code = f"""
import threading, time
from eglr_selectors.grading import workers
pool = workers.shared_pool()
pool.run([('1', '2')])
pids = [worker.process.pid for worker in pool._idle]
{hang if busy else ""}
print(*pids, flush=True)
time.sleep(100)
"""
    host = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=_environment()
    )
    assert host.stdout is not None
    pids = [int(pid) for pid in host.stdout.readline().split()]
    assert pids
    assert all(_alive(pid) for pid in pids)
    host.send_signal(signal.SIGKILL)
    host.wait()
    host.stdout.close()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_workers_of_its_own() -> None:
    grade(*INTEGRAL)
    code = """
import os
from eglr_selectors.grading import grade
assert grade(r"\\int_0^1 x dx", r"\\frac12").correct
child = os.fork()
if child == 0:
    os._exit(0 if grade(r"\\int_0^1 x dx", r"\\frac14").correct is False else 1)
assert os.waitpid(child, 0)[1] == 0
assert grade(r"\\int_0^1 x dx", r"\\frac15").correct is False
"""
    assert subprocess.run([sys.executable, "-c", code], env=_environment(), timeout=60).returncode == 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_no_zombie_is_left() -> None:
    grade(*INTEGRAL)
    workers.close_workers()
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if children.exists():
        states = [_alive(int(pid)) for pid in children.read_text().split()]
        assert all(states), "a zombie is left"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_workers_that_died_while_idle_cost_no_job_its_verdict() -> None:
    pool = workers.WorkerPool(size=2)
    try:
        pool.run([("1", "2")] * 20)
        for worker in pool._idle:
            worker.process.kill()
            worker.process.wait()
        assert [reply.equal for reply in pool.run([INTEGRAL] * 20)] == [True] * 20
    finally:
        pool.close()
