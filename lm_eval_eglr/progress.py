"""The bar of a run that decodes: tokens of an estimate, so that it moves before a pool is finished."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from eglr_selectors import RolloutPool
from tqdm.auto import tqdm

SHORT_OF_LIMIT = 0.5
"""Share of the length limit that a rollout is taken to have until finished ones tell more."""


class DecodingBar:
    """Counts tokens and finished rollouts, and guesses how many tokens there will be.

    Args:
        bar: What shows it.
        rollouts: Total number of rollouts; ``None`` where a strategy decides as it goes.
        limit: Length limit of a rollout, tokens.
    """

    def __init__(self, bar: tqdm[None], rollouts: int | None, limit: float) -> None:
        self._bar = bar
        self._rollouts = rollouts
        self._lengths = [SHORT_OF_LIMIT * limit]  # a first guess, then the lengths of finished rollouts
        self._finished = 0
        bar.total = self.expected_tokens()
        bar.refresh()

    def expected_tokens(self) -> int | None:
        """Tokens of the whole run, as far as finished rollouts tell; ``None`` where no number is set."""
        if self._rollouts is None:
            return None
        guess, *lengths = self._lengths
        mean = (guess + sum(lengths)) / len(self._lengths)
        expected = sum(lengths) + (self._rollouts - len(lengths)) * mean
        return max(round(expected), int(self._bar.n))

    def advance(self, new_tokens: int, finished: int) -> None:
        """Counts what one step has drawn."""
        self._finished += finished
        of_all = "" if self._rollouts is None else f"/{self._rollouts}"
        self._bar.set_postfix_str(f"{self._finished}{of_all} rollouts", refresh=False)
        if self._bar.total is not None and self._bar.n + new_tokens > self._bar.total:
            self._bar.total = int(self._bar.n) + new_tokens
        self._bar.update(new_tokens)

    def watch(self, pools: Iterable[tuple[int, RolloutPool]]) -> Iterator[tuple[int, RolloutPool]]:
        """Passes pools on as they finish, and learns how long their rollouts are."""
        for number, pool in pools:
            self._lengths += [len(rollout.tokens) for rollout in pool]
            self._bar.total = self.expected_tokens()
            yield number, pool


@contextmanager
def decoding_bar(*, show: bool, rollouts: int | None, limit: float) -> Iterator[DecodingBar]:
    """Opens a bar; where the standard error is no terminal it stays silent.

    Args:
        show: Whether to show it at all.
        rollouts: As of :class:`DecodingBar`.
        limit: Likewise.
    """
    hidden = None if show else True  # None: tqdm looks whether it writes to a terminal
    with tqdm(unit="tok", unit_scale=True, desc="Decoding pools", disable=hidden) as bar:
        yield DecodingBar(bar, rollouts, limit)
