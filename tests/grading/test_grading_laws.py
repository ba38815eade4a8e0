"""Laws of grading and of classes, over generated answers."""

from __future__ import annotations

import inspect
import random
import sys

import pytest
from case_files import CASES, read_rows
from eglr_selectors.grading import Answer, Rules, Verdict, classes, classes_many, extract, grade, grade_many
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

_ROWS = [
    row
    for path in CASES.glob("*.jsonl")
    if path.stem != "hazards"
    for row in read_rows(path)
    if "answer" in row and row["rules"] == "math"
]
CORPUS = sorted({row[side] for row in _ROWS for side in ("gold", "answer")})

whole = st.integers(-999, 9999).map(str)
fraction = st.tuples(st.integers(-50, 50), st.integers(1, 60)).map(
    lambda parts: rf"\frac{{{parts[0]}}}{{{parts[1]}}}"
)
plain = st.one_of(
    whole, fraction, st.decimals(-99, 99, places=3).map(str), st.sampled_from(["x", "\\pi", "e", "n"])
)
formula = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " "]), inner).map(
            lambda parts: f"({parts[0]}){parts[1]}({parts[2]})"
        ),
        inner.map(lambda part: rf"\sqrt{{{part}}}"),
        st.tuples(inner, st.integers(-3, 4)).map(lambda parts: f"({parts[0]})^{{{parts[1]}}}"),
    ),
    max_leaves=5,
)
several = st.lists(formula, min_size=2, max_size=4)
answer = st.one_of(
    formula,
    several.map(",".join),
    several.map(lambda items: "(" + ",".join(items) + ")"),
    several.map(lambda items: r"\{" + ",".join(items) + r"\}"),
    st.tuples(whole, st.sampled_from(["cm", r"\text{ m}", r"\%", r"^\circ", " dollars"])).map("".join),
    st.sampled_from(CORPUS),
)
FRAGMENTS = [
    r"\boxed{",
    "}",
    "{",
    r"\frac",
    r"\sqrt",
    "^",
    "_",
    "(",
    ")",
    "[",
    "]",
    r"\{",
    r"\}",
    ",",
    "=",
    "<",
    r"\le",
]
FRAGMENTS += [
    "1",
    "23",
    "x",
    r"\text{",
    "cm",
    r"\pi",
    "!",
    "%",
    "$",
    "|",
    "-",
    "+",
    "/",
    ":",
    ".",
    " ",
    r"\cup",
    "e9",
]
FRAGMENTS += [
    r"\left",
    r"\begin{pmatrix}",
    "&",
    r"\\",
    r"\end{pmatrix}",
    r"\pm",
    "and",
    "or",
    "<think>",
    "</think>",
]
soup = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)


def renumbered(numbers: list[int]) -> list[int]:
    seen: dict[int, int] = {}
    return [number if number == -1 else seen.setdefault(number, len(seen)) for number in numbers]


@QUICK
@given(answer)
def test_every_answer_equals_itself(text: str) -> None:
    assert grade(text, text).correct
    assert grade(text, Answer(f" {text} ")).correct


@QUICK
@given(answer, answer)
def test_grading_is_symmetric_and_agrees_with_classes(one: str, other: str) -> None:
    both = grade(one, other), grade(other, one)
    if both[0] != both[1]:
        # An answer may state the value of an expression; a gold that is an equation wants an equation.
        assert "=" in one + other
    assert (len(set(classes([one, other]))) == 1) == any(verdict.correct for verdict in both)


@QUICK
@given(st.lists(st.one_of(answer, st.none()), max_size=8), st.randoms(use_true_random=False))
def test_classes_do_not_depend_on_order_or_repeats(texts: list[str | None], chance: random.Random) -> None:
    numbers = classes(texts)
    places = list(range(len(texts)))
    chance.shuffle(places)
    assert classes([texts[i] for i in places]) == renumbered([numbers[i] for i in places])
    assert classes(texts * 2) == numbers * 2
    for text, number in zip(texts, numbers, strict=True):
        assert (number == -1) == (text is None)


@QUICK
@given(st.lists(answer, min_size=2, max_size=6))
def test_members_of_one_class_grade_each_other_as_correct(texts: list[str]) -> None:
    numbers = classes(texts)
    pairs = [(i, j) for i in range(len(texts)) for j in range(i) if numbers[i] == numbers[j]]
    one_way = grade_many([(texts[i], texts[j]) for i, j in pairs])
    other_way = grade_many([(texts[j], texts[i]) for i, j in pairs])
    assert all(one.correct or other.correct for one, other in zip(one_way, other_way, strict=True))


@QUICK
@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6), st.integers(2, 50))
def test_spellings_of_one_number_are_one_class(top: int, bottom: int, factor: int) -> None:
    spellings = [
        rf"\frac{{{top}}}{{{bottom}}}",
        f"{top}/{bottom}",
        rf"\dfrac{{{top * factor}}}{{{bottom * factor}}}",
        rf"x = \frac{{{-top}}}{{-{bottom}}}",
        rf"$\left(\frac{{{top}}}{{{bottom}}}\right)$.",
    ]
    assert set(classes(spellings)) == {0}
    assert grade(spellings[0], rf"\frac{{{top + 1}}}{{{bottom}}}").correct is False


@QUICK
@given(st.one_of(st.text(max_size=60), soup), st.one_of(st.text(max_size=60), soup))
def test_no_text_raises(one: str, other: str) -> None:
    found = extract(one, fallbacks=("hash", "phrase", "last_number"))
    for rules in ("math", "quantity", "integer"):
        verdicts = grade_many([(other, found), (one, other), (other, one)], Rules.named(rules))
        assert verdicts[1].outcome in ("correct", "wrong", "no_answer", "ungraded")
    assert classes([one, other, None])[2] == -1


def test_a_cache_is_asked_first_and_holds_what_was_graded() -> None:
    cache: dict[tuple[str, str, str], Verdict] = {}
    verdicts = grade_many([("1", "1.0"), ("1", None), ("1", "2")], cache=cache)
    key = Rules().key
    assert cache == {("1", "1.0", key): verdicts[0], ("1", "2", key): verdicts[2]}
    cache["1", "2", key] = Verdict("correct", "string", "from the cache")
    assert grade_many([("1", "2")], cache=cache)[0].reason == "from the cache"


def test_groups_are_numbered_as_alone() -> None:
    groups = [["1", "2", "1.0"], [], [None, "x"], ["", "3"]]
    assert classes_many(groups) == [classes(group) for group in groups]
    assert classes(["", " ", None, "3"]) == [-1, -1, -1, 0]


def test_a_lenient_answer_joins_one_class_and_no_more() -> None:
    numbers = classes([r"12\text{ m}", "12", r"12\text{ cm}"])
    assert numbers[0] != numbers[2]
    assert numbers[1] in (numbers[0], numbers[2])


def test_parentheses_mean_no_order_where_the_rules_say_so() -> None:
    unordered = Rules(unordered=True)
    assert grade("(1,2)", "(2,1)", unordered).correct
    assert grade("(1,2)", r"\{2,1\}", unordered).correct
    assert grade("(1,2)", "(2,3)", unordered).correct is False
    assert grade("(1,2)", "(2,1)").correct is False


def test_a_full_stack_costs_a_verdict_and_no_later_one() -> None:
    assert grade("x+1", "1+x").correct
    outcomes = set()
    for room in range(60, 400, 20):
        gold, answer = "(" * 12 + "x" + ")" * 12 + f"+{room}", f"{room}+x"
        frames = sys.getrecursionlimit() - len(inspect.stack(0)) - room
        outcomes.add(_below(frames, gold, answer).outcome)
        assert grade(gold, answer).correct
    assert outcomes == {"correct", "ungraded"}


def _below(frames: int, gold: str, answer: str) -> Verdict:
    return _below(frames - 1, gold, answer) if frames > 0 else grade(gold, answer)


@pytest.mark.parametrize(
    "options",
    [{"form": "int"}, {"relative_tolerance": -1}, {"relative_tolerance": True + 0.5}, {"unordered": 1}],
)
def test_rules_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Rules(**options)  # type: ignore[arg-type]


def test_unknown_names_raise() -> None:
    with pytest.raises(ValueError, match="expected one of math"):
        Rules.named("maths")
    with pytest.raises(ValueError, match="fallbacks"):
        extract("3", fallbacks=("last",))
    with pytest.raises(TypeError, match="fallbacks"):
        extract("3", fallbacks="hash")
    with pytest.raises(ValueError, match="on_ungraded"):
        grade("1", "1", on_ungraded="explode")
    with pytest.raises(ValueError, match="outcome='right': expected one of correct"):
        Verdict("right", "string")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="origin"):
        Answer("3", "somewhere")  # type: ignore[arg-type]
