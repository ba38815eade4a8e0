"""The items that are being recursed: spans of gated rows, one iteration per pass until they converge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from lm_eval_eglr.decoding.config import RecursionConfig
from lm_eval_eglr.decoding.passes import Residuals
from lm_eval_eglr.decoding.recursion import entropy, kl_divergence, recursion_input, recursion_output

Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class Item(Generic[Owner]):
    """One span at one position, on its way from p_0 to p_L.

    Attributes:
        owner: Whose distribution it is.
        span: L ≥ 1.
        divergences: KL(p_k ‖ p_{k−1}) of each iteration so far, nats.
        converged: Whether the tolerance was met.
        logprobs: ln p_k of the last iteration, ``[vocab]``, once it has ended.
        entropy: Of that distribution, nats.
    """

    owner: Owner
    span: int
    divergences: list[float] = field(default_factory=list)
    converged: bool = False
    logprobs: Tensor | None = None
    entropy: float = float("nan")


class Items(Generic[Owner]):
    """Applies the top layers to each item until its distribution converges, at most K_max times.

    An item joins after the pass that gated it and leaves as soon as it has converged. It takes part in
    passes with whatever else there is to run, so that the weights are read once for all; no item sees
    another, and what else is in a pass changes nothing but rounding.

    Attributes:
        states: h_{k−1} of each item, ``[items, dim]``.
    """

    def __init__(self, config: RecursionConfig) -> None:
        self._config = config
        self._items: list[Item[Owner]] = []  # deepest first
        self._anchors = self.states = self._logprobs = torch.empty(0)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def spans(self) -> list[int]:
        """Span of each item, deepest first."""
        return [item.span for item in self._items]

    @property
    def owners(self) -> list[Owner]:
        """Owner of each item, in the same order."""
        return [item.owner for item in self._items]

    def join(
        self, items: Sequence[Item[Owner]], residuals: Residuals, rows: Sequence[int], plain: Tensor
    ) -> None:
        """Adds items that the last pass has gated.

        Args:
            items: New ones.
            residuals: The residual stream of that pass.
            rows: Row of that pass that each of them continues.
            plain: ln p_0 of each of them, ``[items, vocab]``.
        """
        states = residuals.hidden[list(rows), -1]
        anchors = torch.empty_like(states)
        places_of: dict[int, list[int]] = defaultdict(list)
        for place, item in enumerate(items):
            places_of[item.span].append(place)
        for span, places in places_of.items():
            anchors[places] = residuals.before(span)[[rows[place] for place in places], -1].to(states)
        self._items += items
        self._anchors = _joined(self._anchors, anchors)
        self.states = _joined(self.states, states)
        self._logprobs = _joined(self._logprobs, plain)
        order = sorted(range(len(self._items)), key=lambda place: -self._items[place].span)
        if order != list(range(len(order))):
            self._keep(order)

    def inputs(self) -> Tensor:
        """z_k, what each item's first layer is applied to, ``[items, dim]``."""
        return recursion_input(self._config.update, self._config.strength, self._anchors, self.states)

    def outputs(self, applied: Tensor) -> Tensor:
        """h_k from f(z_k), both ``[items, dim]``."""
        config = self._config
        applied = applied.to(self.states.device)
        self.states = recursion_output(config.update, config.strength, self.states, applied)
        return self.states

    def observe(self, logprobs: Tensor) -> None:
        """Ends the iteration with its distributions, ``[items, vocab]``; items that are done leave."""
        logprobs = logprobs.to(self._logprobs.device)
        steps = kl_divergence(logprobs, self._logprobs).tolist()
        self._logprobs = logprobs
        left: list[int] = []
        done: list[int] = []
        for place, (item, step) in enumerate(zip(self._items, steps, strict=True)):
            item.divergences.append(step)
            item.converged = step < self._config.tolerance
            ended = item.converged or len(item.divergences) == self._config.max_recursions
            (done if ended else left).append(place)
        if done:
            ends = logprobs[done]  # a copy, so that what waits for its row does not hold all of them
            for place, value, end in zip(done, entropy(ends).tolist(), ends, strict=True):
                self._items[place].logprobs, self._items[place].entropy = end, value
            self._keep(left)

    def keep(self, wanted: Callable[[Owner], bool]) -> None:
        """Forgets the items of owners that are not wanted any more."""
        left = [place for place, item in enumerate(self._items) if wanted(item.owner)]
        if len(left) < len(self._items):
            self._keep(left)

    def _keep(self, places: list[int]) -> None:
        self._items = [self._items[place] for place in places]
        self._anchors, self.states = self._anchors[places], self.states[places]
        self._logprobs = self._logprobs[places]


def _joined(held: Tensor, new: Tensor) -> Tensor:
    """Both, one after the other; an empty tensor may be on another device."""
    return torch.cat([held, new]) if len(held) else new
