"""What math-verify cannot decide: bounded for a pool, not tried twice, kept for the next process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

import pytest
from eglr_selectors import Rollout, RolloutPool, parse_pool
from eglr_selectors.grading import (
    UndecidedPairs,
    classes,
    grade,
    grade_many,
    math_verify_queue,
    partitions,
    undecided,
    workers,
)

# Series that neither the parser nor math-verify brings to an end: each pair costs a worker its whole time.
ENDLESS = [rf"\sum_{{k=1}}^{{\infty}} \frac{{\sin(kx)}}{{k^{power}+y}}" for power in range(2, 12)]


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    undecided.clear()
    math_verify_queue._asked.clear()
    yield
    undecided.clear()


class Slow:
    """Stands in for the workers: every job takes a second of theirs, and only "ok" ones come to an end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried: list[tuple[str, str]] = []
        monkeypatch.setattr(workers.WorkerPool, "run", self.run)

    def run(self, jobs: Sequence[tuple[str, str]], skip, done) -> list[workers.Reply]:  # type: ignore[no-untyped-def]
        replies = []
        for index, job in enumerate(jobs):
            if reason := skip(index):
                replies.append(workers.Reply(None, reason))
                continue
            self.tried.append(job)
            good = all("ok" in side for side in job)
            replies.append(workers.Reply(True if good else None, "time", 1.0))
            done(index, replies[-1])
        return replies


def integral(name: str) -> str:
    return rf"\oint_{{{name}}} x dx"


def test_a_vote_over_endless_answers_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    answers = [integral(f"bad{number}") for number in range(40)]
    [found] = partitions([answers], seconds=5)
    assert found.numbers == list(range(40)), "undecided answers are kept apart"
    assert found.undecided == 40 * 39 // 2
    assert len(slow.tried) == 5, "the pool's time is five of these jobs"


def test_an_answer_that_ran_out_is_not_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    answers = [integral("bad"), integral("ok1"), integral("ok2"), integral("ok3")]
    numbers = classes(answers, seconds=100)
    assert len({numbers[1], numbers[2], numbers[3]}) <= 2
    assert sum("bad" in one + other for one, other in slow.tried) < 3
    assert len({tuple(sorted(job)) for job in slow.tried}) == len(slow.tried)


def test_a_gold_stays_comparable_after_a_hard_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    Slow(monkeypatch)
    gold = integral("ok")
    verdicts = grade_many([(gold, integral("bad")), (gold, integral("zok"))])
    assert [verdict.outcome for verdict in verdicts] == ["ungraded", "correct"]


def test_each_pool_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    pairs = [(integral(f"ok{gold}"), integral(f"bad{gold}{n}")) for gold in range(3) for n in range(9)]
    verdicts = grade_many(pairs, seconds=4)
    assert len(slow.tried) == 12
    assert {verdict.outcome for verdict in verdicts} == {"ungraded"}
    assert {verdict.reason for verdict in verdicts} == {"time", f"{math_verify_queue.LIMIT_REASON} (4 s)"}


def test_what_no_time_was_left_for_is_not_paid_for_again_unless_there_is_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow(monkeypatch)
    answers = [integral(f"bad{number}") for number in range(20)]
    first = partitions([answers], seconds=3)
    assert len(slow.tried) == 3
    assert partitions([answers], seconds=3) == first
    rows = undecided.rows()
    undecided.clear()
    undecided.load(rows)
    assert partitions([answers], seconds=3) == first
    assert len(slow.tried) == 3, "neither again in this process nor in one that knows what it knew"
    partitions([answers], seconds=5)
    assert len(slow.tried) > 3


def test_no_time_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    assert grade(integral("ok"), integral("ok2"), seconds=0).outcome == "ungraded"
    assert grade("1/2", "0.5", seconds=0).correct
    assert not slow.tried
    with pytest.raises(ValueError, match=r"seconds=-1: expected a number, at least 0"):
        grade("1", "1", seconds=-1)
    with pytest.raises(ValueError, match="seconds=True"):
        classes(["1"], seconds=True)


def test_what_ran_out_is_remembered_and_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    pair = (integral("bad"), integral("ok"))
    assert grade(*pair).reason == "time"
    assert grade(*pair).reason == "time"
    assert len(slow.tried) == 1, "asked once a process"
    rows = json.loads(json.dumps(undecided.rows()))
    assert len(rows) == len(undecided) == 1
    undecided.clear()
    undecided.load(rows)
    assert grade(*reversed(pair)).outcome == "ungraded"
    assert len(slow.tried) == 1, "and never in the next one"
    undecided.clear()
    assert grade(*pair).outcome == "ungraded"
    assert len(slow.tried) == 2


@pytest.mark.parametrize("rows", [["ab"], [["a", "b"]], [["a", "b", 3]]])
def test_rows_of_another_kind_are_refused(rows: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="expected \\[one, other, reason\\]"):
        UndecidedPairs().load(rows)


def test_a_pool_counts_what_its_vote_left_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    Slow(monkeypatch)
    texts = [rf"\boxed{{{integral(f'bad{number}')}}}" for number in range(3)]
    parsed = parse_pool(RolloutPool(tuple(Rollout(text) for text in texts)), reference=integral("ok"))
    assert parsed.undecided == 3
    assert parsed.correct == (None, None, None)


@pytest.mark.slow
def test_real_answers_that_never_end_stay_within_the_limit() -> None:
    start = time.monotonic()
    [found] = partitions([ENDLESS], seconds=4)
    first = time.monotonic() - start
    assert found.numbers == list(range(len(ENDLESS)))
    assert first < 30, "two workers, four seconds, and one more job each"
    start = time.monotonic()
    partitions([ENDLESS], seconds=4)
    assert time.monotonic() - start < first, "what ran out is not tried again"
