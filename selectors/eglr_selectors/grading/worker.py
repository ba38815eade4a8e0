"""The process in which sympy reads what a model wrote: a loop over JSON lines, with limits on itself.

Started by :mod:`~eglr_selectors.grading.workers`, one job at a time. It ends with its standard input, so also
when the host is killed. What the limits do not cover: one C call that holds the interpreter is not stopped by
the soft time-out, only by the kernel's limit on processor time or by the host.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import sys
import threading
from typing import IO, Any

MEMORY_BYTES = 1536 << 20
"""Address space; with the interpreter and sympy this leaves about 1 GiB for one comparison."""
SOFT_SECONDS = 1.5
"""Processor time of one comparison, so that a busy machine changes no verdict."""


class SoftTimeoutError(BaseException):
    """Not an ``Exception``: math-verify and sympy swallow those."""


def main() -> None:
    """Serves jobs until the standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _limit_memory()
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, _on_timeout)
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_lines, args=(sys.stdin, jobs), daemon=True).start()
    try:
        from eglr_selectors.grading import math_verify_bridge
    except BaseException as error:
        _send(replies, {"failed": f"{type(error).__name__}: {error}"})
        return
    _send(replies, {"ready": True})
    while True:
        job = json.loads(jobs.get())
        reply = _answer(math_verify_bridge, job)
        _send(replies, {"id": job["id"], **reply, "bytes": _peak_bytes()})
        if reply.get("ungraded") == "memory":
            return


def _answer(math_verify_bridge: Any, job: dict[str, Any]) -> dict[str, Any]:
    try:
        _limit_processor_time()
        # Repeated, as a bare except clause in between may swallow the first one.
        signal.setitimer(signal.ITIMER_PROF, SOFT_SECONDS, 0.2)
        try:
            equal, reason = math_verify_bridge.equal(job["gold"], job["answer"])
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except SoftTimeoutError:
        return {"ungraded": "time"}
    except MemoryError:
        return {"ungraded": "memory"}
    except Exception as error:
        return {"equal": False, "reason": f"math-verify raised {type(error).__name__}"}
    return {"equal": equal, "reason": reason}


def _on_timeout(signum: int, frame: object) -> None:
    raise SoftTimeoutError


def _read_lines(source: IO[str], jobs: queue.Queue[str]) -> None:
    for line in source:
        jobs.put(line)
    os._exit(0)


def _send(replies: IO[str], record: dict[str, Any]) -> None:
    replies.write(json.dumps(record) + "\n")
    replies.flush()


def _limit_memory() -> None:
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ValueError, OSError):  # macOS refuses; a lower limit may be set already
        pass


def _limit_processor_time() -> None:
    """Lets the kernel end the process if one job runs far over: works where Python cannot interrupt."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime + 2 * SOFT_SECONDS) + 2
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _peak_bytes() -> int:
    """The most memory that this process has had.

    Linux lets a process begin with the peak of the one that started it, which may hold a model, in
    ``ru_maxrss``; what its status says begins anew.
    """
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
