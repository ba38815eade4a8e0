"""The final answer of a model's output: the last box after the thinking part, or a named fallback."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from eglr_selectors.grading.boxes import boxed_answer
from eglr_selectors.grading.fallbacks import FALLBACKS, fallback_answer

Origin = Literal["boxed", "hash", "phrase", "last_number", "given"]

_THINK = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)


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

    The last balanced, non-empty ``\boxed`` or ``\fbox`` after the thinking part counts, with the boxes that
    its sentence joins to it (``\boxed{2}`` and ``\boxed{3}`` are two values of one answer).

    Args:
        text: The whole output.
        fallbacks: What to try, in this order, where there is no box: ``hash`` (a ``####`` line),
            ``phrase`` ("the answer is", "**Answer**:", and their like in other languages), ``last_number``.

    Returns:
        The answer, or ``None`` if there is none.

    Raises:
        ValueError: If a fallback is unknown.
        TypeError: If ``fallbacks`` is one string.
    """
    if isinstance(fallbacks, str):
        raise TypeError(f"fallbacks={fallbacks!r}: expected a sequence of names, not one string")
    for name in fallbacks:
        if name not in FALLBACKS:
            raise ValueError(f"fallbacks: {name!r}: expected some of {', '.join(FALLBACKS)}")
    spoken = without_thinking(text)
    content = boxed_answer(spoken)
    if content:
        return Answer(content, "boxed")
    for name in fallbacks:
        content = fallback_answer(spoken, name)
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
