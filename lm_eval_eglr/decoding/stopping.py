"""Where a rollout's text ends: stop strings, also across token and byte boundaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from eglr_selectors.pool import FinishReason
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


STOP, LENGTH, ERROR = 1, 2, 3
REASONS: dict[int, FinishReason] = {STOP: "stop", LENGTH: "length", ERROR: "error"}
"""Why a rollout ends; 0 is for one that goes on."""


class EndCheck:
    """Says which rollouts end with their newest token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[int]) -> None:
        """Decodes by ``tokenizer``; ``end_tokens`` end every rollout."""
        self._tokenizer = tokenizer
        self._ends = np.array(sorted(end_tokens), np.int64)

    def reasons(
        self,
        newest: np.ndarray,
        lengths: np.ndarray,
        *,
        limits: np.ndarray,
        stops: np.ndarray,
        rules: Sequence[StopRule],
        tokens_of: Callable[[int], list[int]],
    ) -> np.ndarray:
        """Why each rollout ends, as number into :data:`REASONS`.

        Args:
            newest: Newest token of each, below 0 where drawing it failed, ``[rollouts]``.
            lengths: Tokens of each with it, ``[rollouts]``.
            limits: How many it may have, ``[rollouts]``.
            stops: Its stop strings, as index into ``rules``, ``[rollouts]``.
            rules: Stop strings; the first one is for none.
            tokens_of: All tokens of a rollout.
        """
        reasons = np.where(lengths >= limits, LENGTH, 0)
        reasons[(newest[:, None] == self._ends).any(1)] = STOP
        if len(rules) > 1:
            watched = np.flatnonzero((stops > 0) & (reasons != STOP) & (newest >= 0))
            # A token's text is looked at once per run, and a rollout's where its newest token may matter.
            pairs, inverse = np.unique(stops[watched] * (1 << 32) + newest[watched], return_inverse=True)
            may = [rules[pair >> 32].may_end(self._tokenizer, pair % (1 << 32)) for pair in pairs.tolist()]
            for place in watched[np.array(may, bool)[inverse]].tolist():
                if rules[stops[place]].reached(self._tokenizer, tokens_of(place)):
                    reasons[place] = STOP
        reasons[newest < 0] = ERROR
        return reasons
