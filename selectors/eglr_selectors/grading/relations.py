"""Equations, inequalities, intervals and lists: what several parts say together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from eglr_selectors.grading.arithmetic import TooLargeError, exact, substituted, symbols
from eglr_selectors.grading.formula import parse_formula
from eglr_selectors.grading.formula_tokens import Tree, UnreadableError
from eglr_selectors.grading.numeric import same_value
from eglr_selectors.grading.parsed_answer import (
    Equation,
    Group,
    Named,
    Opaque,
    ParsedAnswer,
    Piece,
    RealSet,
    Value,
)
from eglr_selectors.grading.splitting import split

INFINITY: Tree = ("constant", "infty")
ALL_REALS = RealSet(((True, ("neg", INFINITY), INFINITY, True),))

_RELATION = re.compile(r"<=|>=|!=|\\le\b|\\ge\b|\\ne\b|\\in\b|[<>=]")
_ONE_NAME = re.compile(
    r"(?:\\?[A-Za-z]|\\[A-Za-z]{2,}|[A-Z]{2,4}|[A-Za-z]{4,}|\\text\{[^{}]*\})"
    r"(?:_(?:\{[^{}]*\}|\w))?(?:'|\^\{\\prime\})*(?:\((?:[A-Za-z0-9](?:,[A-Za-z0-9])*)\))?"
    r"|m?\\(?:angle|triangle|overline|widehat|vec|hat|bar|overrightarrow)\{?[A-Za-z0-9_{}]+\}?|\|[A-Z]{2}\||\[[A-Z]{3,6}\]"
    r"|P\([^()]*\)|\\mathbb\{?E\}?(?:\[[A-Z]\])?"
)
_NAME_TUPLE = re.compile(r"\(([A-Za-z](?:_\{?\w+\}?)?(?:,[A-Za-z](?:_\{?\w+\}?)?)+)\)")
_BARS = re.compile(r"\|([A-Za-z])\|")
_DENIALS_TEXT = "not never or neither wrong incorrect if except"
_DENIALS = frozenset(_DENIALS_TEXT.split())
_SWAPPED = {"<": ">", ">": "<", "le": "ge", "ge": "le", "ne": "ne"}
_OPERATORS = {"<=": "le", ">=": "ge", "!=": "ne", r"\le": "le", r"\ge": "ge", r"\ne": "ne", r"\in": "in"}


def related(text: str, read: Callable[[str], ParsedAnswer]) -> ParsedAnswer | None:
    """Reads a text that holds relation signs outside brackets; ``None`` if it holds none."""
    if not _RELATION.search(text):
        return None
    parts = [part.strip() for part in split(text, _RELATION.pattern)]
    if len(parts) == 1:
        return None
    operators = [_OPERATORS.get(sign, sign) for sign in _signs(text, parts)]
    if not all(parts):
        return Opaque(text, never_equal=True)
    if set(operators) == {"="}:
        return _equation(text, parts, read)
    if operators == ["in"]:
        return Named(_spaceless(parts[0]), read(parts[1])) if is_name(parts[0]) else Opaque(text)
    return _inequality(parts, operators) or Opaque(text)


def _signs(text: str, parts: Sequence[str]) -> Iterator[str]:
    position = 0
    for part in parts[:-1]:
        position = text.index(part, position) + len(part)
        match = _RELATION.search(text, position)
        assert match is not None
        position = match.end()
        yield match[0]


def is_name(text: str) -> bool:
    """Whether a left side only names what the right one says: x, f(x), AB, an angle, an upright word."""
    return bool(_ONE_NAME.fullmatch(_spaceless(text)))


def _spaceless(text: str) -> str:
    return text.replace(" ", "")


def _equation(text: str, parts: Sequence[str], read: Callable[[str], ParsedAnswer]) -> ParsedAnswer:
    first, last = parts[0], parts[-1]
    names = _NAME_TUPLE.fullmatch(_spaceless(first))
    content = read(last)
    if names and isinstance(content, Group) and len(content.items) == len(names[1].split(",")):
        return _assignments(dict(zip(names[1].split(","), content.items, strict=True)))
    named = is_name(first)
    if not named and len(parts) == 2 and is_name(last) and not is_name(first):
        first, last = last, first
        content, named = read(last), True
    between = [read(part) for part in (parts[1:-1] if named else parts[:-1])]
    values = [parsed for parsed in [*between, content] if isinstance(parsed, Value)]
    if len(values) == len(between) + 1 and (named or not any(symbols(value.tree) for value in values)):
        # A chain such as x = 2 + 2 = 4 says its last part unless it is false: 4 = 5 is no answer.
        if all_same([value.tree for value in values], unless_open=True):
            return Named(_spaceless(first), content) if named else content
        return Opaque(text, never_equal=True)
    if named and not between:
        return Named(_spaceless(first), content)
    if (stated := _stated(parts, read)) is not None:
        return stated
    trees = [_tree(part) for part in parts]
    if len(trees) == 2 and trees[0] is not None and trees[1] is not None:
        return Equation(("+", trees[0], ("neg", trees[1])))
    # Of a longer chain math-verify would take the last part, whether it is true or not.
    return Opaque(text, never_equal=len(parts) > 2)


def _stated(parts: Sequence[str], read: Callable[[str], ParsedAnswer]) -> ParsedAnswer | None:
    """Reads what an expression is said to be: m + n = 100 + 13 = 113, P(A) = 1/2, 113 = m + n."""
    sides = [read(part) for part in parts]
    if not _constant(sides[-1]):
        if len(parts) != 2 or not _constant(sides[0]):
            return None
        sides.reverse()
        parts = list(reversed(parts))
    value = sides[-1]
    assert isinstance(value, Value)
    if any(word in _DENIALS for word in re.findall(r"[a-z]+", parts[0].casefold())):
        return Opaque("=".join(parts), never_equal=True)
    # All constants of a chain have to be the same one; a sum with dots cannot be checked.
    constants = [side.tree for side in sides if isinstance(side, Value) and _constant(side)]
    if not all_same(constants, unless_open=True) or any(_false(side) for side in sides):
        return Opaque("=".join(parts), never_equal=True)
    left = _tree(parts[0])
    return Equation(None if left is None else ("+", left, ("neg", value.tree)), value)


def _constant(parsed: ParsedAnswer) -> bool:
    return isinstance(parsed, Value) and not symbols(parsed.tree)


def _false(parsed: ParsedAnswer) -> bool:
    return isinstance(parsed, Opaque) and parsed.never_equal and bool(re.fullmatch(r"[-\d\s.]+", parsed.text))


def all_same(trees: Sequence[Tree], unless_open: bool = False) -> bool:
    """Whether formulas have one value; where that stays open, what ``unless_open`` says."""
    try:
        found = [same_value(tree, trees[-1]) for tree in trees]
        return all(unless_open if same is None else same for same in found)
    except (TooLargeError, ZeroDivisionError):
        return False


def _tree(text: str) -> Tree | None:
    try:
        return parse_formula(text)
    except UnreadableError:
        return None


def _inequality(parts: Sequence[str], operators: Sequence[str]) -> ParsedAnswer | None:
    """Reads x > 3, 3 < x, 1 < x < 2 and x ≠ 2 as sets of what x may be."""
    parts = list(parts)
    if len(parts) == 2 and not is_name(parts[0]) and is_name(parts[1]):
        parts.reverse()
        operators = [_SWAPPED.get(operators[0], "")]
    trees = [_tree(part) for part in parts]
    below: Tree = ("neg", INFINITY)
    bars = _BARS.fullmatch(_spaceless(parts[0]))
    if len(parts) == 2 and bars and (end := trees[1]) is not None and operators[0] in ("<", "le", ">", "ge"):
        strict = operators[0] in "<>"
        outside = ((True, below, ("neg", end), strict), (strict, end, INFINITY, True))
        inside = ((strict, ("neg", end), end, strict),)
        return Named(bars[1], RealSet(inside if operators[0] in ("<", "le") else outside))
    if len(parts) == 2 and not is_name(parts[0]) and trees[0] is not None and trees[1] is not None:
        solved = _linear(("+", trees[0], ("neg", trees[1])))
        if solved is None:
            return None
        name, root, falling = solved
        parts, trees = [name, ""], [None, ("number", root)]
        operators = [_SWAPPED.get(operators[0], "") if falling else operators[0]]
    if len(parts) == 2 and is_name(parts[0]) and (end := trees[1]) is not None:
        pieces = {
            "<": ((True, below, end, True),),
            "le": ((True, below, end, False),),
            ">": ((True, end, INFINITY, True),),
            "ge": ((False, end, INFINITY, True),),
            "ne": ((True, below, end, True), (True, end, INFINITY, True)),
        }.get(operators[0])
        return Named(_spaceless(parts[0]), RealSet(pieces)) if pieces else None
    if len(parts) == 3 and is_name(parts[1]) and trees[0] is not None and trees[2] is not None:
        low, high = trees[0], trees[2]
        if set(operators) <= {">", "ge"}:
            low, high, operators = high, low, [_SWAPPED[sign] for sign in reversed(operators)]
        if set(operators) <= {"<", "le"}:
            piece = (operators[0] == "<", low, high, operators[1] == "<")
            return Named(_spaceless(parts[1]), RealSet((piece,)))
    return None


def _linear(difference: Tree) -> tuple[str, Fraction, bool] | None:
    """Solves a x + b = 0; returns the symbol, the root, and whether a is negative."""
    names = symbols(difference)
    if len(names) != 1 or (name := next(iter(names))).endswith("()"):
        return None
    try:
        start, middle, end = (exact(substituted(difference, name, Fraction(value))) for value in (0, 1, 2))
    except ArithmeticError:
        return None
    slope = middle - start
    if slope == 0 or end - middle != slope:
        return None
    return name, -start / slope, slope < 0


def interval(left: str, low: ParsedAnswer, high: ParsedAnswer, right: str) -> RealSet | None:
    """Returns the interval between two brackets, if its ends are values."""
    if not isinstance(low, Value) or not isinstance(high, Value):
        return None
    return RealSet(((left == "(", low.tree, high.tree, right == ")"),))


def as_real_set(reading: ParsedAnswer) -> RealSet | None:
    """Returns what a pair of values means as an interval, a set of values as points."""
    if isinstance(reading, RealSet):
        return reading
    if isinstance(reading, Group) and len(reading.items) == 2 and reading.kind in ("()", "[]"):
        return interval(reading.kind[0], reading.items[0], reading.items[1], reading.kind[1])
    return None


def united(readings: Sequence[ParsedAnswer], points: bool = False) -> ParsedAnswer:
    """Joins what stands on both sides of "or" or ∪."""
    names = {reading.name for reading in readings if isinstance(reading, Named)}
    contents = [reading.content if isinstance(reading, Named) else reading for reading in readings]
    pieces: list[Piece] = []
    for content in contents:
        if points and isinstance(content, Group) and content.kind == "set":
            trees = [item.tree for item in content.items if isinstance(item, Value)]
            pieces += [(False, tree, tree, False) for tree in trees]
        elif real := as_real_set(content) if points or isinstance(content, RealSet) else None:
            pieces += real.pieces
        elif points:
            return Opaque("union")
        else:
            return listed(readings)
    if len(names) > 1:
        return listed(readings)
    joined = RealSet(merged(pieces))
    return Named(names.pop(), joined) if names else joined


def merged(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Joins intervals that overlap or touch, where the order of all ends is known."""
    keys = {piece: (order_key(piece[1]), order_key(piece[2])) for piece in pieces}
    if any(low != low or high != high or low > high for low, high in keys.values()):
        return tuple(pieces)
    found: list[Piece] = []
    for piece in sorted(keys, key=lambda each: (keys[each][0], each[0])):
        if found:
            last = found[-1]
            end, start = order_key(last[2]), keys[piece][0]
            if start < end or (start == end and not (last[3] and piece[0])):
                further = (keys[piece][1], not piece[3]) > (end, not last[3])
                found[-1] = (last[0], last[1], *(piece[2:] if further else last[2:]))
                continue
        found.append(piece)
    return tuple(found)


def listed(items: Sequence[ParsedAnswer]) -> ParsedAnswer:
    """Returns bare values, x = 1, x = 2, or x = 3, y = 4 as one reading."""
    named = [item for item in items if isinstance(item, Named)]
    names = [item.name for item in named]
    if len(named) == len(items) == 2 and names[0] == names[1]:
        both = _intersected(named[0].content, named[1].content)
        if both is not None:
            return Named(names[0], both)
    if named and len(set(names)) == 1 and isinstance(items[0], Named):
        contents = [item.content if isinstance(item, Named) else item for item in items]
        return Named(names[0], Group("list", tuple(expanded(contents))))
    if len(named) == len(items) and len(set(names)) == len(names):
        return _assignments({item.name: item.content for item in named})
    return Group("list", tuple(expanded(items)))


def _intersected(one: ParsedAnswer, other: ParsedAnswer) -> RealSet | None:
    """x > 3 and x < 5 is one interval; two rays that do not meet are a union, whatever joins them.

    Ends whose order is not known, as in x > a and x < b, are taken to be in order.
    """
    if not (
        isinstance(one, RealSet) and isinstance(other, RealSet) and len(one.pieces) == len(other.pieces) == 1
    ):
        return None
    for above, below in ((one.pieces[0], other.pieces[0]), (other.pieces[0], one.pieces[0])):
        if above[2] == INFINITY and below[1] == ("neg", INFINITY):
            if order_key(above[1]) >= order_key(below[2]):
                return RealSet((below, above))
            return RealSet(((above[0], above[1], below[2], below[3]),))
    return None


def expanded(items: Sequence[ParsedAnswer]) -> Iterator[ParsedAnswer]:
    """Takes the two values of a ± among other values."""
    for item in items:
        if isinstance(item, Group) and item.kind == "list":
            yield from item.items
        else:
            yield item


def _assignments(values: dict[str, ParsedAnswer]) -> ParsedAnswer:
    """x = 3, y = 4 in any order, and (x, y) = (3, 4), are one point."""
    names = sorted(values)
    return Named(f"({','.join(names)})", Group("()", tuple(values[name] for name in names)))


def order_key(tree: Tree) -> float:
    """Returns a number to order interval ends by; NaN for symbolic ones."""
    if tree == INFINITY:
        return float("inf")
    if tree == ("neg", INFINITY):
        return float("-inf")
    try:
        return float(exact(tree))
    except (TooLargeError, OverflowError):
        return float("nan")
    except ArithmeticError:
        from eglr_selectors.grading.numeric import approximate

        return approximate(tree)
