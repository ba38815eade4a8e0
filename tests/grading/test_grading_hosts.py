"""The grader in hosts that run an event loop: asyncio programs, and notebooks, whose cells run inside one."""

from __future__ import annotations

import asyncio
import threading

import pytest
from eglr_selectors.grading import Verdict, classes, grade, grade_many
from eglr_selectors.grading.math_verify_queue import _asked

INTEGRALS = [(rf"\int_0^{upper} x dx", str(upper * upper / 2)) for upper in range(1, 7)]


@pytest.fixture(autouse=True)
def asked_anew() -> None:
    _asked.clear()


def test_many_tasks_grade_at_once() -> None:
    async def all_of_them() -> list[Verdict]:
        return await asyncio.gather(*(asyncio.to_thread(grade, *pair) for pair in INTEGRALS))

    assert all(verdict.correct for verdict in asyncio.run(all_of_them()))


def test_the_loop_goes_on_while_a_thread_grades() -> None:
    async def ticks_meanwhile() -> int:
        grading = asyncio.create_task(asyncio.to_thread(grade_many, INTEGRALS))
        ticks = 0
        while not grading.done():
            ticks += 1
            await asyncio.sleep(0)
        assert all(verdict.correct for verdict in await grading)
        return ticks

    assert asyncio.run(ticks_meanwhile()) > 10


def test_a_cell_of_a_notebook_grades_inside_a_running_loop() -> None:
    """A notebook's cell is a plain call in the thread of a running loop."""

    async def cell() -> list[int]:
        assert asyncio.get_running_loop().is_running()
        return classes([INTEGRALS[0][0], "1/2", "0.5"])

    assert asyncio.run(cell()) == [0, 0, 0]


def test_a_cancelled_task_leaves_the_grader_usable() -> None:
    began, may_end = threading.Event(), threading.Event()

    def graded() -> list[Verdict]:
        began.set()
        verdicts = grade_many(INTEGRALS)
        may_end.wait(60)  # so that it is cancelled before it is done, however fast the machine
        return verdicts

    async def cancelled() -> None:
        task = asyncio.create_task(asyncio.to_thread(graded))
        while not began.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_end.set()

    asyncio.run(cancelled())
    assert all(verdict.correct for verdict in grade_many(INTEGRALS))
