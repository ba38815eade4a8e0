r"""The boxes of a text: which of them holds the answer, and which belong together.

The last balanced ``\boxed{}`` or ``\fbox{}`` that holds something counts, the outer one of nested boxes.
Boxes that one sentence only joins (``\boxed{2}`` and ``\boxed{3}``) are one answer of several values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"(?:\\{1,2}|\x08)(?:boxed|oxed|fbox|framebox)(?![A-Za-z])\s*(\{?)|\\.|[{}]", re.DOTALL)
_VISIBLE = re.compile(r"\S")
_LINE_END = re.compile(r"[$\n]")
_BARE = re.compile(
    r"[-+]?\d+(?:[.,/^]\d+)*(?![A-Za-z])|\\frac\s*(?:\{[^{}]*\}|\d)\s*(?:\{[^{}]*\}|\d)|\\sqrt\s*(?:\{[^{}]*\}|\d)"
    r"|\\(?:pi|infty|emptyset|varnothing)(?![A-Za-z])|[A-J](?=[\s.$]*(?:$|\$))"
)
_MARKUP = re.compile(r"\\(?:text|mathrm|textbf)|[{}\s._…?]|\\[lc]?dots(?![A-Za-z])")
_PLACEHOLDERS = (
    "", "answer", "youranswer", "finalanswer", "answerhere", "youranswerhere", "theanswer", "thefinalanswer",
    "yourfinalanswer", "yourfinalanswerhere", "insertanswerhere",
)  # fmt: skip
"""What stands in the box of somebody who talks about boxes, blanks and markup taken out."""
_SPACING = re.compile(r"\$+|\\[()\[\],;:! ]|\\q?quad(?![A-Za-z])|~|\\text\s*\{([^{}]*)\}|\*\*")
_NAME = re.compile(r"(\\?[A-Za-z]+(?:_(?:\{\w+\}|\w))?)\s*=\s*$")
_JOINED = re.compile(r"(?:[a-z]+\s+){0,3}?(?:,?\s*(and|or)\b|[,;])\s*(?:[a-z]+\s*){0,2}")
_MOST_JOINED = 12
_CORRECTIONS = (
    "so then thus hence but not no wait is was are be gives get got which actually now therefore we answer"
    " correct wrong right since because it that if when from to final finally instead rather equals becomes"
)
_CORRECTION_WORDS = frozenset(_CORRECTIONS.split())


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a box begins and ends, and where what it holds does."""

    start: int
    inner: int
    inner_end: int
    end: int


def boxed_answer(text: str) -> str:
    """Returns what the boxes of a text hold; empty if there is none.

    A box that was never closed counts only if there is no balanced one and all braces inside it are closed;
    it then ends with its line. The word alone, without braces, counts before a number only.
    """
    boxes, open_box, bare = _boxes(text)
    boxes = [box for box in boxes if not _is_placeholder(text[box.inner : box.inner_end])]
    if boxes:
        return _together(text, boxes)
    if open_box is not None:
        end = _LINE_END.search(text, open_box)
        return unboxed(text[open_box : end.start() if end else len(text)])
    return bare


def _boxes(text: str) -> tuple[list[_Box], int | None, str]:
    """One pass with a stack of open braces; the text can be any length and need not be balanced."""
    stack: list[tuple[int, int | None]] = []
    found: list[_Box] = []
    bare = ""
    for token in _TOKEN.finditer(text):
        if token[1] is not None:
            if token[1]:
                stack.append((token.end(), token.start()))
            elif match := _BARE.match(text, token.end()):
                bare = match[0]
        elif token[0] == "{":
            stack.append((token.end(), None))
        elif token[0] == "}" and stack:
            inner, start = stack.pop()
            visible = _VISIBLE.search(text, inner) if start is not None else None
            if start is not None and visible and visible.start() < token.start():
                while found and found[-1].start > start:
                    found.pop()
                found.append(_Box(start, inner, token.start(), token.end()))
    open_box = stack[-1][0] if stack and stack[-1][1] is not None else None
    return found, open_box, bare


def _is_placeholder(content: str) -> bool:
    return len(content) < 60 and _MARKUP.sub("", content).casefold() in _PLACEHOLDERS


def _together(text: str, boxes: list[_Box]) -> str:
    """Returns the content of the last box, with those of the boxes that it is joined to."""
    group = [boxes[-1]]
    joiner = ", "
    for box in reversed(boxes[:-1]):
        between = text[box.end : group[0].start]
        if len(group) == _MOST_JOINED or (word := _joiner(between, _name(text, box))) is None:
            break
        group.insert(0, box)
        joiner = " or " if word == "or" else joiner
    contents = [_content(text, box) for box in group]
    if len(group) == 1 or len({"".join(content.split()) for content in contents}) == 1:
        return contents[-1]
    names = [_name(text, box) for box in group]
    return joiner.join(
        f"{name}={content}" if name else content for name, content in zip(names, contents, strict=True)
    )


def _joiner(between: str, named: str) -> str | None:
    """Returns how a text joins the boxes around it: and, or, a comma; ``None`` if it does not.

    Words like "so", "wait" and "not" come before a new answer, which takes the place of the one before.
    """
    if len(between) > 80:
        return None
    plain = _SPACING.sub(lambda match: f" {match[1] or ''} ", between)
    name = _NAME.search(plain)
    plain = (plain[: name.start()] if name else plain).strip()
    if not plain:
        return "," if name and named and between.strip() else None
    match = _JOINED.fullmatch(plain)
    if (
        match is None
        or "\n\n" in plain
        or _CORRECTION_WORDS & set(plain.casefold().replace(",", " ").split())
    ):
        return None
    return match[1] or ","


def _name(text: str, box: _Box) -> str:
    before = _SPACING.sub(" ", text[max(0, box.start - 20) : box.start])
    match = _NAME.search(before)
    return match[1] if match and len(match[1]) <= 6 and not match[1].startswith("\\") else ""


def _content(text: str, box: _Box) -> str:
    content = unboxed(text[box.inner : box.inner_end])
    # A doubly escaped text: \\boxed{\\frac12}.
    return re.sub(r"\\\\(?=[A-Za-z])", r"\\", content) if text.startswith("\\\\", box.start) else content


def unboxed(content: str) -> str:
    """Returns a text with all boxes taken off what they hold."""
    kept: list[str] = []
    stack: list[bool] = []
    start = 0
    for token in _TOKEN.finditer(content):
        box = bool(token[1])
        if box or token[0] == "{":
            stack.append(box)
        elif token[0] == "}":
            box = bool(stack) and stack.pop()
        if box:
            kept.append(content[start : token.start()])
            start = token.end()
    kept.append(content[start:])
    return "".join(kept).strip()
