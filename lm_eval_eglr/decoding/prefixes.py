"""Keys and values of prompts whose rollouts come in several requests: all but the first go on from them."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval_eglr.decoding.row_cache import RowStates


class Prefixes:
    """What is kept of prompts until their strategy is done with them.

    Only as many prompts are on their way at a time as have rows, so this holds about one row each.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[int, ...], RowStates]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, document: str, tokens: Sequence[int], states: RowStates) -> None:
        """Keeps the keys and values of the first ``tokens`` of a document's prompt."""
        self._kept[document] = (tuple(tokens), states)

    def length(self, document: str, tokens: Sequence[int]) -> int:
        """How many of the first ``tokens`` are kept."""
        kept, _ = self._kept.get(document, ((), {}))
        return len(kept) if tuple(tokens[: len(kept)]) == kept else 0

    def states(self, document: str) -> RowStates:
        """What is kept of a document."""
        return self._kept[document][1]

    def release(self, document: str) -> None:
        """Forgets a document, if it is known."""
        self._kept.pop(document, None)

    def clear(self) -> None:
        """Forgets all."""
        self._kept.clear()
