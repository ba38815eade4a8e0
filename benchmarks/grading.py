"""Prints the figures of grading: verdicts on cases, reports and golds, speed, hostile and endless answers.

Speed is by the processor time of this process (workers have theirs, which a wall clock would add), so that a
busy machine changes it little.

Run from the checkout: ``PYTHONPATH=selectors python benchmarks/grading.py``. Cases and golds are read from
EGLR_SHARED_DIR, or from ``../shared`` beside the checkout; what is not there is left out and said so.
"""

from __future__ import annotations

import ast
import json
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "selectors"), str(ROOT / "tests" / "grading")]

from eglr_selectors.grading import (  # noqa: E402
    Rules,
    classes,
    classes_many,
    extract,
    grade,
    grade_many,
    partitions,
    undecided,
)
from eglr_selectors.grading.workers import close_workers, shared_pool  # noqa: E402
from one_change import changes  # noqa: E402
from respellings import exact, respellings  # noqa: E402

SHARED = Path(os.environ.get("EGLR_SHARED_DIR", ROOT.parent / "shared"))
FILES = ["math500", "gsm8k", "aime24", "aime25", "amc23", "minerva_math", "olympiadbench", "svamp"]
HOSTILE = [
    "10^{10^{10}}",
    "9.5^{9.5^{9.5^{9.5}}}",
    r"\operatorname{zeros}(10000,10000)",
    r"\binom{10000000}{5000000}",
    "(1+x+y+z+w)^{200}",
    r"\gcd(10^{100000000},3)",
    r"\sum_{k=1}^{100000000} \sin(k)",
    "9999999!",
    "(" * 5000 + "2" + ")" * 5000,
    "1+" * 50000 + "1",
    r"\sqrt{1+" * 300 + "1" + "}" * 300,
    "7" * 100000,
]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def timed(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple[Any, float]:
    start = clock()
    result = work()
    return result, clock() - start


def on_processor(work: Callable[[], Any]) -> tuple[Any, float]:
    return timed(work, time.process_time)


def cases() -> None:
    pairs = [
        (row["gold"], row["prediction"], row["expected"]) for row in rows(SHARED / "grading/pairs.jsonl")
    ]
    for row in rows(SHARED / "grading/adversarial.jsonl"):
        output = row["output"] if row["output"] is not None else generated(row["gen"])
        pairs.append((row["gold"], extract(output), row["expected"]))
    pairs = [pair for pair in pairs if pair[2] is not None]
    right = sum(grade(gold, answer).correct is expected for gold, answer, expected in pairs)
    print(f"cases with a verdict: {right} of {len(pairs)} as expected")


def reports() -> None:
    """Prints the share of right verdicts on what people report about graders, and on variations of it."""
    found: Counter[str] = Counter()
    for row in rows(SHARED / "grading/reports.jsonl"):
        rules = Rules.named(row["rules"])
        if row["kind"] == "classes":
            right = classes(row["answers"], rules) == row["expected"]
        elif row["kind"] in ("grade", "extract"):
            found_in = row["kind"] == "extract"
            answer = extract(row["output"], fallbacks=row["fallbacks"]) if found_in else row["prediction"]
            verdict = grade(row["gold"], answer, rules)
            right = verdict.correct is row["expected"]
            found["accepted wrongly"] += verdict.correct is True and not right
        else:
            continue
        found["rows"] += 1
        found["right"] += right
    print(f"reports: {found['right']} of {found['rows']} right, {found['accepted wrongly']} false accepts")


def generated(expression: str) -> str:
    ast.parse(expression, mode="eval")
    return eval(expression, {"__builtins__": {"range": range, "len": len, "str": str, "chr": chr}}, {})


def verdicts_on_golds(golds: dict[str, list[str]]) -> None:
    for name, answers in golds.items():
        own = [(gold, gold) for gold in answers]
        respelt = [(gold, text) for gold in answers for text in respellings(gold)]
        wrong = [sum(not verdict.correct for verdict in grade_many(pairs)) for pairs in (own, respelt)]
        print(
            f"{name}: {wrong[0]} of {len(own)} not equal to themselves, {wrong[1]} of {len(respelt)} re-spelt"
        )
    distinct = sorted({gold for answers in golds.values() for gold in answers})
    chance = random.Random(0)
    pairs = [pair for _ in range(5100) if not same(*(pair := tuple(chance.sample(distinct, 2))))][:5000]
    graded, seconds = on_processor(lambda: grade_many(pairs))
    outcomes = Counter(verdict.outcome for verdict in graded)
    rate = f"{len(pairs) / seconds:,.0f} per second"
    print(f"{len(pairs)} random pairs of unequal golds: {dict(outcomes)}, {rate}")
    changed = [(gold, other) for gold in distinct for _, other in changes(gold, chance)]
    pairs = chance.sample(changed, min(2000, len(changed)))
    outcomes = Counter(verdict.outcome for verdict in grade_many(pairs))
    print(f"{len(pairs)} golds with one symbol, word, sign or digit changed: {dict(outcomes)}")


def same(one: str, other: str) -> bool:
    return exact(one) is not None and exact(one) == exact(other)


def speed(golds: dict[str, list[str]]) -> None:
    chance = random.Random(1)
    numbers = [(str(chance.randrange(10**6)), str(chance.randrange(10**6))) for _ in range(200_000)]
    _, seconds = on_processor(lambda: grade_many(numbers))
    print(f"integers: {len(numbers) / seconds:,.0f} per second")
    if "math500" not in golds:
        return
    problems = rows(SHARED / "benchmarks/math500.jsonl")
    completions = []
    for _ in range(800):
        problem = chance.choice(problems)
        said = problem["answer"] if chance.random() < 0.6 else chance.choice(golds["math500"])
        text = problem["solution"].rsplit(r"\boxed", 1)[0] + rf"\boxed{{{said}}}$."
        completions.append((problem["answer"], text))
    _, seconds = on_processor(lambda: grade_many([(gold, extract(text)) for gold, text in completions]))
    rate = f"{len(completions) / seconds:,.0f} per second"
    print(f"{len(completions)} MATH-like completions, extraction included: {rate}")
    groups = []
    for _ in range(500):
        gold = chance.choice(golds["math500"])
        said = [gold, rf"x={gold}", f"{gold}.", *chance.sample(golds["math500"], 12)]
        groups.append([chance.choice(said) for _ in range(64)])
    _, seconds = on_processor(lambda: classes_many(groups))
    print(f"64-way classes over 500 problems: {seconds:.2f} s")


def hostile() -> None:
    (_, first), pool = timed(lambda: grade(r"\int_0^1 x dx", r"\frac12")), shared_pool()
    print(f"first verdict of math-verify, its worker's start included: {first:.2f} s")
    filtered = [timed(lambda text=text: grade("1", text))[1] for text in HOSTILE]
    print(f"slowest hostile answer, hazard filter on: {max(filtered):.3f} s")
    worst = max((timed(lambda text=text: pool.run([("1", text)]))[1], text[:30]) for text in HOSTILE)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"slowest without the filter: {worst[0]:.1f} s ({worst[1]}), largest worker {peak:.2f} GiB")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    good = [(r"\int_0^1 x dx", r"\frac12"), (r"\int_0^1 x dx", r"\frac13")] * len(HOSTILE)
    jobs = [job for pair in zip(good, [("1", text) for text in HOSTILE] * 2, strict=True) for job in pair]
    replies = pool.run(jobs)
    right = sum(
        reply.equal is (job[1] == r"\frac12") for job, reply in zip(jobs, replies, strict=True) if job in good
    )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    close_workers()
    print(f"good answers among hostile ones: {right} of {len(good)} right; the host grew by {grown:.0f} MiB")


def endless() -> None:
    """Prints what a vote costs over answers that math-verify cannot decide, at first and again."""
    answers = [rf"\sum_{{k=1}}^{{\infty}} \frac{{\sin(kx)}}{{k^{power}+y}}" for power in range(2, 66)]
    first, again = (timed(lambda: partitions([answers])) for _ in range(2))
    pairs = f"{first[0][0].undecided} pairs undecided, {len(undecided)} remembered"
    took = f"{first[1]:.1f} s, again {again[1]:.2f} s"
    print(f"a vote over {len(answers)} answers that never end: {took}; {pairs}")


def main() -> None:
    golds: dict[str, list[str]] = {}
    if (SHARED / "grading").is_dir():
        cases()
        reports()
    else:
        print(f"no shared data at {SHARED}: cases and golds left out (set EGLR_SHARED_DIR)")
    for name in FILES:
        if (path := SHARED / "benchmarks" / f"{name}.jsonl").is_file():
            golds[name] = [str(row["answer"]) for row in rows(path)]
    speed(golds)
    if golds:
        verdicts_on_golds(golds)
    endless()
    hostile()


if __name__ == "__main__":
    main()
