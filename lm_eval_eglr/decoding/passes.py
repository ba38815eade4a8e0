"""A pass through the layers: which rows take part in which of them, and where those that are recursed join.

Two kinds do the same. In a :class:`VaryingPass` a row joins by being appended, so that the layers below its
span cost nothing for it. In a :class:`FixedPass` all rows run through all layers and one joins by being
replaced: nothing of it, tensors or their shapes, depends on who joins where, so it can be captured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from lm_eval_eglr.decoding.row_cache import RowCache


class Joining(Protocol):
    """The items of a pass: its last rows, which join it at an upper layer."""

    @property
    def spans(self) -> Sequence[int]:
        """Layers that are applied to each item, deepest first."""

    def inputs(self) -> Tensor:
        """What each item's first layer is applied to, ``[items, dim]``."""

    def outputs(self, applied: Tensor) -> Tensor:
        """The final state of each item from its last layer's output, both ``[items, dim]``."""


@dataclass(slots=True)
class Residuals:
    """The residual stream of a pass of single queries, where recursions may begin.

    Attributes:
        depth: Number N of layers.
        inputs: What each layer was applied to, ``[rows, 1, dim]``, by its number.
        hidden: x_N, the output of the last one, ``[rows, 1, dim]``.
    """

    depth: int
    inputs: dict[int, Tensor] = field(default_factory=dict)
    hidden: Tensor = field(default_factory=lambda: torch.empty(0))

    def before(self, span: int) -> Tensor:
        """x_{N-span}, ``[rows, 1, dim]``; x_N for span 0."""
        return self.inputs[self.depth - span] if span else self.hidden


class Pass(Protocol):
    """What the hooks of a running pass do."""

    bypassed: int  # layers, from the first on, that hand on what they are given

    @property
    def residuals(self) -> Residuals | None:
        """The residual stream; ``None`` if it is not recorded."""

    def enter_layer(self, number: int, hidden: Tensor, given: Any) -> tuple[Tensor, Any] | None:
        """What a layer is called with instead of its input and what else is given; ``None`` for the same."""

    def enter_norm(self, hidden: Tensor) -> Tensor:
        """What the final norm is called with."""


class VaryingPass:
    """A pass in which each layer runs just the rows that take part in it.

    Args:
        cache: Told beforehand which rows take part.
        shape: Rows and queries.
        joining: The items, which are the last rows; ``None`` if there are none.
        depth: Number of layers.
    """

    def __init__(self, cache: RowCache, shape: Sequence[int], joining: Joining | None, depth: int) -> None:
        self._cache = cache
        self._depth = depth
        self._joining = joining
        self._spans = list(joining.spans) if joining is not None else []
        self._rows, queries = shape
        # A prefill's activations are large, and nothing of it is recursed.
        self.residuals = Residuals(depth) if queries == 1 else None
        self._plain = self._rows - len(self._spans)
        self._inputs = joining.inputs() if joining is not None else torch.empty(0)
        # The first layer that runs: where there are no others, that of the deepest item.
        self.bypassed = 0 if self._plain or not self._spans else depth - self._spans[0]
        self._taken: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def enter_layer(self, number: int, hidden: Tensor, given: Any) -> tuple[Tensor, Any] | None:
        """Records the layer's input and lets those whose span begins here join."""
        if self.residuals is not None:
            self.residuals.inputs[number] = hidden
        if not self._spans or number < self.bypassed:
            return None
        if number == self.bypassed:
            hidden = hidden[: self._plain]  # the embedding was given all rows
        joined = self._plain + sum(span >= self._depth - number for span in self._spans)
        if joined > len(hidden):
            here = self._inputs[len(hidden) - self._plain : joined - self._plain, None]
            hidden = torch.cat([hidden, here.to(hidden.device)])
        self._cache.limit_items(joined)
        return hidden, self._take(given, joined)

    def enter_norm(self, hidden: Tensor) -> Tensor:
        """Records x_N; that of items is what the update rule makes of it."""
        if self.residuals is not None:
            self.residuals.hidden = hidden
        if self._joining is None:
            return hidden
        applied = self._joining.outputs(hidden[self._plain :, 0])
        return torch.cat([hidden[: self._plain], applied[:, None]])

    def _take(self, value: Any, count: int) -> Any:
        """What a layer is called with, for the first ``count`` rows; each tensor is taken once."""
        if isinstance(value, Tensor):
            if count == self._rows or value.dim() == 0 or value.shape[0] != self._rows:
                return value
            key = (id(value), count)
            if key not in self._taken:
                # The value is kept beside what was taken: its id must not be given away meanwhile.
                self._taken[key] = (value, value[:count])
            return self._taken[key][1]
        if isinstance(value, (tuple, list)):
            return type(value)(self._take(item, count) for item in value)
        if isinstance(value, dict):
            return {name: self._take(item, count) for name, item in value.items()}
        return value


class FixedPass:
    """A pass in which every layer runs all rows.

    Args:
        cache: Told beforehand which rows take part; it is told at each layer where rows join.
        depth: Number of layers.
        spans: Spans at which rows may join.
        first: Layer at which each row joins, ``[rows]``; -1 of those that begin with their embedding.
        inputs: What that layer is applied to, ``[rows, dim]``.
        outputs: x_N of all rows as their update rule makes it, ``[rows, dim]`` to ``[rows, dim]``.
        bypassed: Layers, from the first on, that no row needs.
    """

    def __init__(
        self,
        cache: RowCache,
        depth: int,
        spans: Collection[int],
        first: Tensor,
        inputs: Tensor,
        outputs: Callable[[Tensor], Tensor],
        bypassed: int = 0,
    ) -> None:
        self.residuals = Residuals(depth)
        self.bypassed = bypassed
        self._cache = cache
        self._layers = {depth - span for span in spans}
        self._first = first
        self._inputs = inputs
        self._outputs = outputs

    def enter_layer(self, number: int, hidden: Tensor, given: Any) -> tuple[Tensor, Any] | None:
        """Records the layer's input where a span begins, and replaces that of the rows that join."""
        if number < self.bypassed:
            return None
        if number == self.bypassed or number in self._layers:
            # What the layers before its first one made of a row is not kept.
            self._cache.store_rows(self._first <= number)
        if number not in self._layers:
            return None
        self.residuals.inputs[number] = hidden
        inputs = self._inputs[:, None].to(hidden.dtype)
        return torch.where((self._first == number)[:, None, None], inputs, hidden), given

    def enter_norm(self, hidden: Tensor) -> Tensor:
        """Records x_N; that of items is what the update rule makes of it."""
        self.residuals.hidden = hidden
        return self._outputs(hidden[:, 0])[:, None]
