"""Whether two parsed answers say the same, decided without math-verify as far as possible.

:data:`COMPARISONS` at the end of this file says which kinds of answers are compared how.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from eglr_selectors.grading import relations
from eglr_selectors.grading.arithmetic import TooLargeError
from eglr_selectors.grading.formula import parse_formula
from eglr_selectors.grading.formula_tokens import Tree, UnreadableError
from eglr_selectors.grading.numeric import multiples
from eglr_selectors.grading.parsed_answer import (
    Choice,
    Clock,
    Conditional,
    Congruence,
    Digits,
    Equation,
    Group,
    Named,
    Opaque,
    ParsedAnswer,
    Piece,
    Ratio,
    RealSet,
    Value,
    Words,
)
from eglr_selectors.grading.rules import Rules
from eglr_selectors.grading.value_comparison import (
    OPEN,
    Comparison,
    compare_trees,
    compare_values,
    integer_value,
)

Compare = Callable[[ParsedAnswer, ParsedAnswer, Rules], Comparison]
Kinds = type | tuple[type, ...]

_DIFFERENT_KINDS = Comparison(False, "structure", "different kinds of answer")


def compare(gold: ParsedAnswer, answer: ParsedAnswer, rules: Rules) -> Comparison:
    """Compares two parsed answers under the rules of a benchmark.

    The first row of :data:`COMPARISONS` that has both kinds decides. All of them are symmetric but one: an
    answer may state the value that is asked for (``m + n = 113``), a gold that is an equation wants one.
    """
    if gold == answer:
        return Comparison(True, "structure", "same parsed form")
    return _comparison_of(type(gold), type(answer))(gold, answer, rules)


def _comparison_of(gold: type[Any], answer: type[Any]) -> Compare:
    if (gold, answer) not in _CHOSEN:
        _CHOSEN[gold, answer] = _chosen(gold, answer)
    return _CHOSEN[gold, answer]


def _chosen(gold: type[Any], answer: type[Any]) -> Compare:
    for row in COMPARISONS:
        if issubclass(gold, row.kind) and issubclass(answer, row.other):
            return row.compare
        if row.either_way and issubclass(answer, row.kind) and issubclass(gold, row.other):
            return _swapped(row.compare)
    return _different_kinds


def row_name(gold: ParsedAnswer, answer: ParsedAnswer) -> str:
    """Returns how two parsed answers are compared, in words."""
    function = _comparison_of(type(gold), type(answer))
    words = (getattr(function, "__wrapped__", function).__doc__ or "").splitlines()[0]
    kinds = f"{type(gold).__name__} with {type(answer).__name__}"
    return f"{kinds}: {words[:1].lower()}{words[1:]}"


_CHOSEN: dict[tuple[type[Any], type[Any]], Compare] = {}


def _swapped(function: Compare) -> Compare:
    @wraps(function)
    def swapped(gold: ParsedAnswer, answer: ParsedAnswer, rules: Rules) -> Comparison:
        return function(answer, gold, rules)

    return swapped


def _different_kinds(gold: ParsedAnswer, answer: ParsedAnswer, rules: Rules) -> Comparison:
    """What one side says cannot be what the other one says."""
    return _DIFFERENT_KINDS


def _letters(tree: Tree) -> str:
    """Returns the word that was read as a product of its letters: yes, no, Amy."""
    factors = tree[1:] if tree[0] == "*" else (tree,)
    names = [factor[1] for factor in factors if factor[0] in ("symbol", "constant")]
    return "".join(names).casefold() if len(names) == len(factors) else ""


def _compare_choice(choice: ParsedAnswer, other: ParsedAnswer, rules: Rules) -> Comparison:
    """The letters, if both sides have one; else what the choice says."""
    assert isinstance(choice, Choice)
    if isinstance(other, Choice):
        return Comparison(choice.letter == other.letter, "text", "choice letters")
    if isinstance(other, Value) and other.tree == ("symbol", choice.letter):
        return Comparison(True, "text", "choice letters")
    if choice.content is None:
        return Comparison(False, "text", "a choice letter against something else")
    return compare(choice.content, other, rules)


def _compare_conditional(left: ParsedAnswer, right: ParsedAnswer, rules: Rules) -> Comparison:
    """What holds, and both conditions, if both sides give one."""
    assert isinstance(left, Conditional)
    if not isinstance(right, Conditional):
        return compare(left.content, right, rules)
    same: bool | None = left.condition == right.condition
    if not same and left.relation is not None and right.relation is not None:
        same = compare(left.relation, right.relation, rules).equal
    if not same:
        return Comparison(False, "structure", "different conditions")
    return compare(left.content, right.content, rules)


def _compare_named(named: ParsedAnswer, other: ParsedAnswer, rules: Rules) -> Comparison:
    """The contents: x = 5 is 5, and f(x) = 2x is y = 2x; but x = 3 is not y = 3."""
    assert isinstance(named, Named)
    if isinstance(other, Named):
        if named.name == other.name or _both_functions(named, other):
            return compare(named.content, other.content, rules)
        return _compare_equations(named, other, rules)
    if isinstance(other, Equation):
        return _compare_equations(named, other, rules)
    if named.name.startswith("(") and isinstance(other, Group) and isinstance(named.content, Group):
        if other.kind == "list" and _numbered(named.name):
            # x_1 = 2, x_2 = 3 are the values of one unknown, which have no order of their own.
            return compare(Group("list", named.content.items), other, rules)
        if other.kind == "set":
            return Comparison(False, "structure", "a point against a set")
    return compare(named.content, other, rules)


def _both_functions(one: Named, other: Named) -> bool:
    """Whether y and f(x) name one function: a name without an argument says as much as one with it."""
    names = sorted((one.name, other.name), key=len)
    return names[0] == "y" and re.fullmatch(r"[A-Za-z]\(x\)", names[1]) is not None


def _numbered(names: str) -> bool:
    parts = names.strip("()").split(",")
    return all("_" in part for part in parts) and len({part.split("_")[0] for part in parts}) == 1


def _state_value(gold: ParsedAnswer, answer: ParsedAnswer, rules: Rules) -> Comparison:
    """The value that an expression is said to have: m + n = 113 answers 113."""
    assert isinstance(answer, Equation)
    if answer.value is None:
        return Comparison(False, "structure", "an equation against a value")
    return compare(gold, answer.value, rules)


def _equation_gold(gold: ParsedAnswer, answer: ParsedAnswer, rules: Rules) -> Comparison:
    """A gold that is an equation wants an equation."""
    return Comparison(False, "structure", "the gold is an equation, the answer is none")


def _compare_equations(left: ParsedAnswer, right: ParsedAnswer, rules: Rules) -> Comparison:
    """Equations are equal if one is a constant multiple of the other."""
    trees = [_equation_tree(left), _equation_tree(right)]
    if trees[0] is None or trees[1] is None:
        return Comparison(False, "structure", "different names")
    try:
        same = multiples(trees[0], trees[1])
    except TooLargeError:
        return Comparison(False, "hazard", "too large to compute: only equal strings count")
    return Comparison(same, "numeric", "equations compared at fixed points")


def _equation_tree(reading: ParsedAnswer) -> Tree | None:
    if isinstance(reading, Equation):
        return reading.tree
    if isinstance(reading, Named) and isinstance(reading.content, Value):
        try:
            return ("+", parse_formula(reading.name), ("neg", reading.content.tree))
        except UnreadableError:
            return None
    return None


def _compare_opaque(left: ParsedAnswer, right: ParsedAnswer, rules: Rules) -> Comparison:
    """math-verify's affair, unless a side is prose or false."""
    for parsed in (left, right):
        if isinstance(parsed, Opaque) and parsed.never_equal:
            return Comparison(False, "text", "not mathematics, or false: only equal strings count")
        if isinstance(parsed, Words):
            return Comparison(False, "text", "words against a formula")
    return OPEN


def _compare_words(words: ParsedAnswer, other: ParsedAnswer, rules: Rules) -> Comparison:
    """The same words, in any case and number; a product of letters may spell one."""
    assert isinstance(words, Words)
    same = isinstance(other, Value) and _letters(other.tree) == words.text
    return Comparison(same, "text", "same letters" if same else "different words")


def _compare_digits(left: ParsedAnswer, right: ParsedAnswer, rules: Rules) -> Comparison:
    """The same digits in the same base, which is found by equality."""
    return Comparison(False, "structure", "a number in another base")


def _compare_ratios(left: ParsedAnswer, right: ParsedAnswer, rules: Rules) -> Comparison:
    """Part by part; a ratio is no quotient."""
    assert isinstance(left, Ratio)
    if not isinstance(right, Ratio) or len(left.parts) != len(right.parts):
        return Comparison(False, "structure", "a ratio against something else")
    return _all([compare(one, other, rules) for one, other in zip(left.parts, right.parts, strict=True)])


def _compare_clocks(clock: ParsedAnswer, other: ParsedAnswer, rules: Rules) -> Comparison:
    """Minutes after midnight: 7:15 pm is 19:15."""
    assert isinstance(clock, Clock)
    return Comparison(_minutes(other) == clock.minutes, "structure", "times of day")


def _minutes(parsed: ParsedAnswer) -> int | None:
    if isinstance(parsed, Clock):
        return parsed.minutes
    if isinstance(parsed, Ratio) and len(parsed.parts) == 2:
        hour, minute = (
            integer_value(part.tree) if isinstance(part, Value) else None for part in parsed.parts
        )
        if hour is not None and minute is not None and 0 <= hour < 24 and 0 <= minute < 60:
            return hour * 60 + minute
    return None


def _compare_congruences(left: ParsedAnswer, right: ParsedAnswer, rules: Rules) -> Comparison:
    """The same residues of the same modulus; 3 (mod 7) is 3, too."""
    assert isinstance(left, Congruence)
    if isinstance(right, Congruence):
        same_names = not left.name or not right.name or left.name == right.name
        same = same_names and (left.residues, left.modulus) == (right.residues, right.modulus)
        return Comparison(same, "structure", "congruences")
    value = integer_value(right.tree) if isinstance(right, Value) else None
    return Comparison(value is not None and left.residues == {value}, "structure", "a residue")


def _compare_real_sets(left: ParsedAnswer, right: ParsedAnswer, rules: Rules) -> Comparison:
    """Interval by interval, in any order."""
    one, other = relations.as_real_set(left), relations.as_real_set(right)
    if one is None or other is None or len(one.pieces) != len(other.pieces):
        return Comparison(False, "structure", "different intervals")
    if len(one.pieces) == 1:
        return _compare_pieces(one.pieces[0], other.pieces[0])
    # Symbolic ends have no known order, so that sorting would not bring equal pieces together.
    return _matched([[_compare_pieces(a, b).equal for b in other.pieces] for a in one.pieces])


def _compare_pieces(one: Piece, other: Piece) -> Comparison:
    if (one[0], one[3]) != (other[0], other[3]):
        return Comparison(False, "structure", "open against closed end")
    return _all([compare_trees(one[1], other[1]), compare_trees(one[2], other[2])])


def _compare_groups(left: ParsedAnswer, right: ParsedAnswer, rules: Rules) -> Comparison:
    """Value by value: lists, sets and cases in any order, tuples and matrices in theirs."""
    assert isinstance(left, Group)
    assert isinstance(right, Group)
    kinds = {left.kind, right.kind}
    if rules.unordered and kinds <= {"()", "[]", "list", "set"}:
        kinds = {"list"}
    if len(left.items) != len(right.items):
        return Comparison(False, "structure", "different numbers of values")
    if kinds <= {"list", "set"} or kinds == {"cases"}:
        return _matched([[compare(one, other, rules).equal for other in right.items] for one in left.items])
    if len(kinds) == 1 or kinds == {"list", "()"}:
        pairs = zip(left.items, right.items, strict=True)
        return _all([compare(one, other, rules) for one, other in pairs])
    return Comparison(False, "structure", "different brackets")


def _compare_single(group: ParsedAnswer, other: ParsedAnswer, rules: Rules) -> Comparison:
    """A set of one value is that value."""
    assert isinstance(group, Group)
    if group.kind == "set" and len(group.items) == 1:
        return compare(group.items[0], other, rules)
    return _DIFFERENT_KINDS


def _matched(table: Sequence[Sequence[bool | None]]) -> Comparison:
    """Compares values in any order, each used once, by a table of which are equal."""
    for line in (*table, *zip(*table, strict=True)):
        if all(equal is False for equal in line):
            return Comparison(False, "structure", "values differ")
    if _pairable(table):
        return Comparison(True, "structure", "same values in any order")
    if any(equal is None for row in table for equal in row):
        return OPEN
    return Comparison(False, "structure", "values differ")


def _pairable(table: Sequence[Sequence[bool | None]]) -> bool:
    """Whether each row can have an equal column of its own.

    Equality is not transitive where rules are lenient (50, 50 % and 0.5), so that taking the first free
    column would depend on the order: a row gives way if it finds another column (augmenting paths).
    """
    taken: dict[int, int] = {}

    def placed(row: int, tried: set[int]) -> bool:
        for column, equal in enumerate(table[row]):
            if equal and column not in tried:
                tried.add(column)
                if column not in taken or placed(taken[column], tried):
                    taken[column] = row
                    return True
        return False

    return all(placed(row, set()) for row in range(len(table)))


def _all(comparisons: Sequence[Comparison]) -> Comparison:
    for comparison in comparisons:
        if comparison.equal is False:
            return Comparison(False, "structure", f"parts differ: {comparison.reason}")
    if any(comparison.equal is None for comparison in comparisons):
        return OPEN
    return Comparison(True, "structure", "equal part by part")


@dataclass(frozen=True, slots=True)
class Row:
    """Two kinds of answers and how they are compared."""

    kind: Kinds
    other: Kinds
    compare: Compare
    either_way: bool = True


_ANY: Kinds = object
COMPARISONS: tuple[Row, ...] = (
    Row(Conditional, _ANY, _compare_conditional),
    Row(Choice, _ANY, _compare_choice),
    Row(Named, _ANY, _compare_named),
    Row(Equation, Equation, _compare_equations),
    Row(Equation, (Value, Group, Words, RealSet, Congruence, Clock, Digits, Ratio), _equation_gold, False),
    Row((Value, Group, Words, RealSet, Congruence, Clock, Digits, Ratio), Equation, _state_value, False),
    Row(Value, Value, compare_values),
    Row(Clock, (Clock, Ratio), _compare_clocks),
    Row(Congruence, (Congruence, Value), _compare_congruences),
    Row(Digits, _ANY, _compare_digits),
    Row(Ratio, _ANY, _compare_ratios),
    Row(Opaque, _ANY, _compare_opaque),
    Row(Words, _ANY, _compare_words),
    Row(RealSet, (RealSet, Group), _compare_real_sets),
    Row(Group, Group, _compare_groups),
    Row(Group, _ANY, _compare_single),
)
"""Which kinds are compared how: the first row that has both decides.

Rows that are not ``either_way`` ask which side is the gold."""
