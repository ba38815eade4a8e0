"""What the items of a recursion attend to: the cached past of their rows, read without a copy per item."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True)
class ItemPlaces:
    """Items laid out by the row they attend to, ``[rows, places]``; made once per pass.

    Several items may share a row: spans of one prefix, or positions of one sequence.

    Attributes:
        rows: Cache rows that are read: numbers ``[rows]``, or a slice where a view is cheaper than a copy.
        row: Which of them each item reads, ``[items]``.
        place: The item's place in its row, ``[items]``.
        count: Number of rows read.
        width: Most items of a row.
        positions: Position of each item, ``[items]``.
    """

    rows: slice | Tensor
    row: Tensor
    place: Tensor
    count: int
    width: int
    positions: Tensor
    _masks: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Tensor, positions: Tensor, live: int) -> ItemPlaces:
        """Lays out items that read ``rows`` ``[items]``, of ``live`` rows in the cache.

        On a GPU each of these lines would wait for it: lay out on the CPU, then move.
        """
        distinct, row = torch.unique(rows, return_inverse=True)
        place = places_among_equals(rows)
        width = int(place.max()) + 1
        if 2 * len(distinct) > live:
            # Reading every row costs no more than copying most of them, and needs no copy.
            return cls(slice(0, live), rows, place, live, width, positions)
        return cls(distinct, row, place, len(distinct), width, positions)

    def to(self, device: torch.device) -> ItemPlaces:
        """The same layout on a device."""
        rows = self.rows if isinstance(self.rows, slice) else self.rows.to(device)
        return ItemPlaces(
            rows,
            self.row.to(device),
            self.place.to(device),
            self.count,
            self.width,
            self.positions.to(device),
        )

    def spread(self, values: Tensor) -> Tensor:
        """``[items, ...]`` to ``[rows, places, ...]``, zero where a row has no item in a place."""
        spread = values.new_zeros(self.count, self.width, *values.shape[1:])
        spread[self.row, self.place] = values
        return spread

    def gather(self, values: Tensor) -> Tensor:
        """``[rows, places, ...]`` back to ``[items, ...]``."""
        return values[self.row, self.place]

    def past_mask(self, mask: Tensor) -> Tensor:
        """What of the past each item sees, ``[rows, places, width]``: ``mask`` without its own column.

        Args:
            mask: As for a plain pass, ``[items, 1, 1, width]``.
        """
        known = self._masks.get(id(mask))
        if known is None:
            columns = torch.arange(mask.shape[-1], device=mask.device)
            seen = mask[:, 0, 0] & (columns != self.positions[:, None])
            # The mask is kept beside the result: its id must not be given away meanwhile.
            known = self._masks[id(mask)] = (mask, self.spread(seen))
        return known[1]


def places_among_equals(rows: Tensor) -> Tensor:
    """Number of equal ones before each, both ``[items]``."""
    order = torch.argsort(rows, stable=True)
    counts = torch.bincount(rows)
    places = torch.empty_like(rows)
    places[order] = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows[order]]
    return places


@dataclass(frozen=True, slots=True)
class ItemPast:
    """The past of one layer: keys ``[rows, key_heads, width, dim]`` and values, with the items' layout."""

    keys: Tensor
    values: Tensor
    places: ItemPlaces
