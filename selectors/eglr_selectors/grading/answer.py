"""The final answer of a model's output: the last box after the thinking part, or a named fallback."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Origin = Literal["boxed", "hash", "phrase", "last_number", "given"]

_THINK = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_BOX_TOKEN = re.compile(r"(?:\\|\x08)(?:boxed|oxed|fbox|framebox)(?![A-Za-z])\s*(\{?)|\\.|[{}]", re.DOTALL)
_VISIBLE = re.compile(r"\S")
_LINE_END = re.compile(r"[$\n]")
_BARE_BOX = re.compile(r"[-+]?\w+(?:[.,/^]\w+)*|\\[A-Za-z]+")
_HASH = re.compile(r"####[ \t]*([^\n]*)")
_PHRASE = re.compile(r"\banswer(?:\s+is|\s*:)(?:\s*:)?[ \t*]*", re.IGNORECASE)
_PHRASE_END = re.compile(r"\n|\.(?=\s|$)|;|\s+(?:because|since|which|where|so)\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])[-−]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d])")
_SPAN = re.compile(r"\*\*(.+?)\*\*|\$\$?([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_FALLBACK_TAIL = 4000
"""A fallback reads only so many last characters: an answer stated earlier is not the final one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The content of a final answer.

    Attributes:
        text: The content, without the box and outer blanks.
        origin: How it was found; ``given`` is a bare string from elsewhere.
    """

    text: str
    origin: Origin = "given"

    def __post_init__(self) -> None:
        if self.origin not in get_args(Origin):
            raise ValueError(f"origin={self.origin!r}: expected one of {', '.join(get_args(Origin))}")
        object.__setattr__(self, "text", self.text.strip())


def extract(text: str, *, fallbacks: Sequence[str] = ()) -> Answer | None:
    r"""Finds the final answer of a model's output.

    The last balanced, non-empty ``\boxed`` or ``\fbox`` after the thinking part counts, the outer one
    of nested boxes. A box that was never closed counts only if there is no balanced one and all braces
    inside it are closed; it then ends with its line.

    Args:
        text: The whole output.
        fallbacks: What to try, in this order, where there is no box: ``hash`` (a ``####`` line),
            ``phrase`` ("the answer is"), ``last_number``.

    Returns:
        The answer, or ``None`` if there is none.

    Raises:
        ValueError: If a fallback is unknown.
        TypeError: If ``fallbacks`` is one string.
    """
    if isinstance(fallbacks, str):
        raise TypeError(f"fallbacks={fallbacks!r}: expected a sequence of names, not one string")
    for name in fallbacks:
        if name not in _FALLBACKS:
            raise ValueError(f"fallbacks: {name!r}: expected some of {', '.join(_FALLBACKS)}")
    spoken = without_thinking(text)
    content = _last_box(spoken)
    if content:
        return Answer(content, "boxed")
    for name in fallbacks:
        content = _FALLBACKS[name](spoken[-_FALLBACK_TAIL:]).strip()
        if content:
            return Answer(content, name)  # type: ignore[arg-type]
    return None


def without_thinking(text: str) -> str:
    """Returns the output without its thinking parts.

    A part that is never closed runs to the end; a closing tag that nothing opened ends one that began
    with the text.
    """
    kept: list[str] = []
    start, thinking = 0, False
    for tag in _THINK.finditer(text):
        if not tag[1]:
            if not thinking:
                kept.append(text[start : tag.start()])
            thinking = True
            continue
        if not thinking:
            kept.clear()
        thinking, start = False, tag.end()
    if not thinking:
        kept.append(text[start:])
    return "\n".join(kept)


def _last_box(text: str) -> str:
    """One pass with a stack of open braces; the text can be any length and need not be balanced."""
    stack: list[tuple[int, bool]] = []
    best = (0, 0)
    for token in _BOX_TOKEN.finditer(text):
        if token[1] is not None:
            if token[1]:
                stack.append((token.end(), True))
            elif bare := _BARE_BOX.match(text, token.end()):
                best = bare.span()
        elif token[0] == "{":
            stack.append((token.end(), False))
        elif token[0] == "}" and stack:
            start, box = stack.pop()
            visible = _VISIBLE.search(text, start) if box else None
            if visible and visible.start() < token.start():
                best = (start, token.start())
    if best == (0, 0) and stack and stack[-1][1]:
        start = stack[-1][0]
        end = _LINE_END.search(text, start)
        best = (start, end.start() if end else len(text))
    return unboxed(text[best[0] : best[1]])


def unboxed(content: str) -> str:
    """Returns a text with all boxes taken off what they hold."""
    kept: list[str] = []
    stack: list[bool] = []
    start = 0
    for token in _BOX_TOKEN.finditer(content):
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


def _hash(text: str) -> str:
    lines = _HASH.findall(text)
    return lines[-1].strip().rstrip(".") if lines else ""


def _phrase(text: str) -> str:
    match = None
    for match in _PHRASE.finditer(text):  # noqa: B007 (the last one counts)
        pass
    if match is None:
        return ""
    rest = text[match.end() :].lstrip(" \t*:")
    if span := _SPAN.match(rest):
        return next(group for group in span.groups() if group is not None)
    return _PHRASE_END.split(rest, maxsplit=1)[0].strip(" *$").rstrip(".")


def _last_number(text: str) -> str:
    numbers = _NUMBER.findall(text)
    return numbers[-1].replace("$", "") if numbers else ""


_FALLBACKS: dict[str, Callable[[str], str]] = {"hash": _hash, "phrase": _phrase, "last_number": _last_number}
