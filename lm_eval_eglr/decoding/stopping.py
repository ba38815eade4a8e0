"""Where a rollout's text ends: stop strings, also across token and byte boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from transformers import PreTrainedTokenizerBase

# Tokens decoded before the first one that could belong to a stop string, so that a character whose
# bytes are several tokens, or a tokenizer that drops a leading space, does not disturb it.
LEAD_TOKENS = 8


def decode_text(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], skip_special_tokens: bool = False
) -> str:
    """Decodes one sequence of token ids."""
    # As an array, since a list is looked at token by token in Python first.
    return cast("str", tokenizer.decode(np.array(tokens), skip_special_tokens=skip_special_tokens))


@dataclass(frozen=True)
class StopRule:
    """Stop strings of a request.

    Attributes:
        strings: Generation stops at the token that completes one of them.
        after: If given, stop strings count only after this string has been written, so that a model's
            thinking part is never cut.
    """

    strings: tuple[str, ...] = ()
    after: str | None = None

    def __post_init__(self) -> None:
        for string in self.strings:
            if not isinstance(string, str):
                raise ValueError(f"until={string!r}: expected strings")

    @cached_property
    def active(self) -> tuple[str, ...]:
        """The strings without empty ones, which would stop at once."""
        return tuple(string for string in self.strings if string)

    @cached_property
    def window(self) -> int:
        """Tokens that a completed stop string can reach back: one per byte, at most."""
        return max((len(s.encode()) for s in self.active), default=0) + LEAD_TOKENS

    @cached_property
    def _may_end(self) -> dict[int, bool]:
        return {}

    def may_end(self, tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
        """Whether a stop string can be completed by a token, whatever is before it.

        It is by tokens that write a string's last character, or part of a character. Each token is looked at
        once, behind another one, because a tokenizer may drop the space that a text begins with.
        """
        if token not in self._may_end:
            lead = decode_text(tokenizer, [token])
            piece = decode_text(tokenizer, [token, token])
            piece = lead + piece
            ends = {string[-1] for string in self.active}
            self._may_end[token] = "\ufffd" in piece or not piece or any(end in piece for end in ends)
        return self._may_end[token]

    def reached(self, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> bool:
        """Whether the newest token completed a stop string."""
        if not self.active:
            return False
        tail = decode_text(tokenizer, tokens[-self.window :])
        if not any(string in tail for string in self.active):
            return False
        # A hit in the tail may be an old one before `after`, or not be in the text as a whole.
        text = decode_text(tokenizer, tokens)
        return self.cut(text) != text

    def cut(self, text: str) -> str:
        """Returns the text up to its first stop string (after ``after``, if that is set)."""
        start = 0
        if self.after is not None:
            found = text.rfind(self.after)
            if found < 0:
                return text
            start = found + len(self.after)
        ends = [text.find(string, start) for string in self.active]
        return text[: min([end for end in ends if end >= 0], default=len(text))]
