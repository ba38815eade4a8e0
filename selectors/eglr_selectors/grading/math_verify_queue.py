"""What only math-verify can decide: asked in the workers, within limits, and remembered.

Three limits keep a hard or hostile pool from holding a run. A pair has :data:`~.workers.WALL_SECONDS`. A pool
(the answers to one gold, or the answers of one vote) has ``seconds`` of the workers' time for all its pairs.
And an answer whose comparison ran out of time or memory is not compared again, unless math-verify decided it
against another one before. What these limits leave out is *ungraded*: neither correct nor wrong, and no
reason to merge two answers.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from eglr_selectors.grading.normalize import normalize
from eglr_selectors.grading.verdict import Outcome, Verdict
from eglr_selectors.grading.workers import NOT_STARTED, Reply, shared_pool

Pair = tuple[str, str]

POOL_SECONDS = 10.0
"""The default limit of a pool, in seconds of the workers' time."""
LIMIT_REASON = "the pool's time for math-verify is spent"
_LIMIT = re.compile(rf"{LIMIT_REASON} \(([\d.]+) s\)")
_EXHAUSTED_REASON = "an answer that ran out of time before"
_COMMAND_BLANK = re.compile(r"(\\[A-Za-z]+) (?![A-Za-z])")
_MAX_KEPT = 100_000


@dataclass(slots=True)
class UndecidedPairs:
    """Pairs that ran out of time or memory, or that no time was left for: no process pays for them twice.

    A process remembers its own. A store can keep them for the next one: ``rows()`` gives what to write,
    ``load()`` takes it back. Rules do not matter here: math-verify knows none of them.
    """

    reasons: dict[Pair, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __len__(self) -> int:
        return len(self.reasons)

    def __contains__(self, pair: object) -> bool:
        return pair in self.reasons

    def rows(self) -> list[list[str]]:
        """Returns every pair as ``[one, other, reason]``, normalized and in a fixed order, for JSON."""
        return sorted([*pair, reason] for pair, reason in self.reasons.items())

    def load(self, rows: Iterable[Iterable[str]]) -> None:
        """Takes what :meth:`rows` gave, and keeps what is known already.

        Raises:
            ValueError: If a row is not three texts.
        """
        for row in rows:
            texts = [row] if isinstance(row, str) else list(row)
            if len(texts) != 3 or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"undecided pair {row!r}: expected [one, other, reason], three texts")
            one, other, reason = texts
            self.add((one, other) if one <= other else (other, one), reason)

    def add(self, pair: Pair, reason: str) -> None:
        """Remembers a pair, up to a bound on how many there are."""
        with self._lock:
            if len(self.reasons) < _MAX_KEPT or pair in self.reasons:
                self.reasons[pair] = reason

    def holds_within(self, pair: Pair, seconds: float) -> bool:
        """Whether a pair stays undecided: one that no time was left for is tried if there is more of it."""
        reason = self.reasons.get(pair)
        if reason is None:
            return False
        limit = _LIMIT.fullmatch(reason)
        return limit is None or seconds <= float(limit[1])

    def clear(self) -> None:
        """Forgets all pairs, so that they are tried again."""
        with self._lock:
            self.reasons.clear()
            _exhausted.clear()


undecided = UndecidedPairs()
"""What math-verify could not decide in this process, and what was loaded from elsewhere."""

_asked: dict[Pair, Verdict] = {}
_decided: set[str] = set()
_exhausted: set[str] = set()


def ask_math_verify(
    pairs: Mapping[Pair, Iterable[Hashable]], seconds: float, never_blamed: Iterable[str] = ()
) -> dict[Pair, Verdict]:
    """Asks math-verify in the workers; both orders of a pair share one job, so the result is symmetric.

    Args:
        pairs: The pairs, each with the pools that want to know; a pool's time is charged for all its pairs.
        seconds: The limit of each pool.
        never_blamed: Texts that stay comparable even if a comparison with them ran out: the golds.

    Returns:
        A verdict for each pair: ``ungraded`` where it ran out or a limit was reached.
    """
    jobs = {pair: _job(pair) for pair in pairs}
    verdicts: dict[Pair, Verdict] = {}
    for job in jobs.values():
        if job in _asked:
            verdicts[job] = _asked[job]
        elif undecided.holds_within(job, seconds):
            verdicts[job] = Verdict("ungraded", "math-verify", undecided.reasons[job])
    missing = sorted(set(jobs.values()) - set(verdicts))
    pools: dict[Pair, set[Hashable]] = {}
    for pair, wanted_by in pairs.items():
        pools.setdefault(jobs[pair], set()).update(wanted_by)
    spared = {_written(text) for text in never_blamed}
    spent: dict[Hashable, float] = {}

    def skip(index: int) -> str:
        one, other = missing[index]
        if all(spent.get(pool, 0.0) >= seconds for pool in pools[one, other]):
            return f"{LIMIT_REASON} ({seconds:g} s)"
        return _EXHAUSTED_REASON if one in _exhausted or other in _exhausted else ""

    def done(index: int, reply: Reply) -> None:
        job = missing[index]
        for pool in pools[job]:
            spent[pool] = spent.get(pool, 0.0) + reply.seconds
        if reply.equal is not None:
            _decided.update(job)
            return
        _exhausted.update(text for text in job if text not in _decided and text not in spared)

    for job, reply in zip(missing, shared_pool().run(missing, skip, done), strict=True):
        outcome: Outcome = "ungraded" if reply.equal is None else "correct" if reply.equal else "wrong"
        verdicts[job] = Verdict(outcome, "math-verify", reply.reason)
        if outcome != "ungraded":
            _asked[job] = verdicts[job]
        elif seconds and reply.reason != NOT_STARTED:
            undecided.add(job, reply.reason)
    for kept in (_asked, _decided, _exhausted):
        if len(kept) > _MAX_KEPT:
            kept.clear()
    return {pair: verdicts[job] for pair, job in jobs.items()}


def checked_seconds(seconds: float) -> float:
    """Returns a limit as it is.

    Raises:
        ValueError: If it is no number of seconds.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise ValueError(f"seconds={seconds!r}: expected a number, at least 0")
    return seconds


def _written(text: str) -> str:
    return _COMMAND_BLANK.sub(r"\1", normalize(text))


def _job(pair: Pair) -> Pair:
    one, other = (_written(text) for text in pair)
    return (one, other) if one <= other else (other, one)
