"""Whether two readings say the same, decided without math-verify as far as possible; symmetric throughout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from eglr_selectors.grading import relations, units
from eglr_selectors.grading.arithmetic import TooLargeError
from eglr_selectors.grading.formula import Tree, UnreadableError, parse_formula
from eglr_selectors.grading.numeric import approximate, facts, multiples, same_value
from eglr_selectors.grading.parsed_answer import (
    Choice,
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
from eglr_selectors.grading.verdict import Path


@dataclass(frozen=True, slots=True)
class Comparison:
    """Equal, unequal, or ``None`` where only math-verify can tell."""

    equal: bool | None
    path: Path
    reason: str


_OPEN = Comparison(None, "math-verify", "not decided by reading")


def compare(left: ParsedAnswer, right: ParsedAnswer, rules: Rules) -> Comparison:
    """Compares two readings under the rules of a benchmark."""
    if left == right:
        return Comparison(True, "structure", "same reading")
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Choice):
            return _compare_choice(one, other, rules)
        if isinstance(one, Named) and not (isinstance(other, Named) and other.name != one.name):
            return _compare_named(one, other, rules)
    if isinstance(left, Named):
        return _compare_equations(left, right)
    if isinstance(left, Value) and isinstance(right, Value):
        return _compare_values(left, right, rules)
    if isinstance(left, Digits | Ratio) or isinstance(right, Digits | Ratio):
        return _compare_parts(left, right, rules)
    if isinstance(left, Opaque) or isinstance(right, Opaque):
        return _compare_opaque(left, right)
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Words):
            same = isinstance(other, Value) and _letters(other.tree) == one.text
            return Comparison(same, "text", "same letters" if same else "different words")
    if isinstance(left, Equation) and isinstance(right, Equation):
        return _compare_equations(left, right)
    if isinstance(left, RealSet) or isinstance(right, RealSet):
        return _compare_real_sets(left, right)
    if isinstance(left, Group) and isinstance(right, Group):
        return _compare_groups(left, right, rules)
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Group) and one.kind == "set" and len(one.items) == 1:
            return compare(one.items[0], other, rules)
    return Comparison(False, "structure", "different kinds of answer")


def _letters(tree: Tree) -> str:
    """Returns the word that was read as a product of its letters: yes, no, Amy."""
    factors = tree[1:] if tree[0] == "*" else (tree,)
    names = [factor[1] for factor in factors if factor[0] in ("symbol", "constant")]
    return "".join(names).casefold() if len(names) == len(factors) else ""


def _compare_choice(choice: Choice, other: ParsedAnswer, rules: Rules) -> Comparison:
    if isinstance(other, Choice):
        return Comparison(choice.letter == other.letter, "text", "choice letters")
    if isinstance(other, Value) and other.tree == ("symbol", choice.letter):
        return Comparison(True, "text", "choice letters")
    if choice.content is None:
        return Comparison(False, "text", "a choice letter against something else")
    return compare(choice.content, other, rules)


def _compare_named(named: Named, other: ParsedAnswer, rules: Rules) -> Comparison:
    if isinstance(other, Named):
        return compare(named.content, other.content, rules)
    if isinstance(other, Equation):
        return _compare_equations(named, other)
    if named.name.startswith("(") and isinstance(other, Group) and other.kind == "set":
        return Comparison(False, "structure", "a point against a set")
    return compare(named.content, other, rules)


def _compare_equations(left: ParsedAnswer, right: ParsedAnswer) -> Comparison:
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


def _compare_opaque(left: ParsedAnswer, right: ParsedAnswer) -> Comparison:
    for reading in (left, right):
        if isinstance(reading, Opaque) and reading.never_equal:
            return Comparison(False, "text", "not mathematics, or false: only equal strings count")
        if isinstance(reading, Words):
            return Comparison(False, "text", "words against a formula")
    return _OPEN


def _compare_parts(left: ParsedAnswer, right: ParsedAnswer, rules: Rules) -> Comparison:
    if isinstance(left, Ratio) and isinstance(right, Ratio) and len(left.parts) == len(right.parts):
        return _all([compare(one, other, rules) for one, other in zip(left.parts, right.parts, strict=True)])
    return Comparison(False, "structure", "a base or ratio against something else")


def _compare_real_sets(left: ParsedAnswer, right: ParsedAnswer) -> Comparison:
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
    return _all([_compare_trees(one[1], other[1]), _compare_trees(one[2], other[2])])


def _compare_groups(left: Group, right: Group, rules: Rules) -> Comparison:
    kinds = {left.kind, right.kind}
    if rules.unordered and kinds <= {"()", "[]", "list", "set"}:
        kinds = {"list"}
    if len(left.items) != len(right.items):
        return Comparison(False, "structure", "different numbers of values")
    if kinds <= {"list", "set"}:
        return _matched([[compare(one, other, rules).equal for other in right.items] for one in left.items])
    if len(kinds) == 1 or kinds == {"list", "()"}:
        pairs = zip(left.items, right.items, strict=True)
        return _all([compare(one, other, rules) for one, other in pairs])
    return Comparison(False, "structure", "different brackets")


def _matched(table: Sequence[Sequence[bool | None]]) -> Comparison:
    """Compares values in any order, each used once, by a table of which are equal."""
    for line in (*table, *zip(*table, strict=True)):
        if all(equal is False for equal in line):
            return Comparison(False, "structure", "values differ")
    if _pairable(table):
        return Comparison(True, "structure", "same values in any order")
    if any(equal is None for row in table for equal in row):
        return _OPEN
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
        return _OPEN
    return Comparison(True, "structure", "equal part by part")


def _compare_values(left: Value, right: Value, rules: Rules) -> Comparison:
    one, other = left.tree, right.tree
    if left.unit and right.unit and left.unit != right.unit:
        scales = units.scale(left.unit), units.scale(right.unit)
        if scales[0] is None or scales[1] is None or scales[0][0] != scales[1][0]:
            return Comparison(False, "rule", "different units")
        one, other = (
            _scaled(tree, scale[1]) for tree, scale in zip((one, other), scales, strict=True) if scale
        )
    if left.percent != right.percent and (left.unit or right.unit):
        return Comparison(False, "rule", "a percentage against a quantity")
    if left.percent != right.percent:
        # 50 % is 0.5; whether it is 50 too is the benchmark's affair.
        plain, marked = (other, one) if left.percent else (one, other)
        exactly = _compare_trees(plain, _scaled(marked, Fraction(1, 100)), rules.relative_tolerance)
        if exactly.equal or rules.percent == "strict":
            return exactly
    return _compare_trees(one, other, rules.relative_tolerance)


def _scaled(tree: Tree, factor: Fraction) -> Tree:
    return ("*", tree, ("number", factor))


def _compare_trees(left: Tree, right: Tree, tolerance: float = 0.0) -> Comparison:
    try:
        one, other = facts(left).rational, facts(right).rational
        if one is not None and other is not None:
            if one == other:
                return Comparison(True, "number", "equal numbers")
            return _tolerated(one, other, tolerance, "number")
        same = same_value(left, right)
    except TooLargeError:
        return Comparison(False, "hazard", "too large to compute: only equal strings count")
    except ZeroDivisionError:
        return Comparison(False, "number", "undefined value")
    if same is None:
        return _OPEN
    if same:
        return Comparison(True, "numeric", "equal at fixed points")
    if tolerance:
        values = approximate(left), approximate(right)
        if all(abs(value) < 1e300 for value in values):
            return _tolerated(Fraction(values[0]), Fraction(values[1]), tolerance, "numeric")
    return Comparison(False, "numeric", "different at a fixed point")


def _tolerated(one: Fraction, other: Fraction, tolerance: float, path: Path) -> Comparison:
    """The larger of both is the reference, so that the order does not matter."""
    if tolerance and abs(one - other) <= Fraction(tolerance) * max(abs(one), abs(other)):
        return Comparison(True, "rule", "equal within the tolerance")
    return Comparison(False, path, "different numbers")
