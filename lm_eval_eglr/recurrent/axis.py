"""Recurrences as a depth axis: the level is the number r of iterations that a token's block is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eglr_selectors.cell import Axis


@dataclass(frozen=True, slots=True)
class RecurrentBlock:
    """The recurrent block of one model.

    Attributes:
        own: Iterations of its own.
        block: Layers of one.
        checked: Layers of the coda, if a rule of exit reads the distribution after each iteration; else
            ``None``.
        name: What the model is called where options are refused.
    """

    own: int
    block: int
    checked: int | None
    name: str

    letter: ClassVar[Axis] = "R"
    shares_rows: ClassVar[bool] = False

    @property
    def refusal(self) -> str:
        """Its layers are iterated already."""
        return (
            f"an option of the recursion of top layers; {self.name} is a recurrent-depth model and takes "
            f"recurrences (its own is {self.own}), exit, exit_threshold and kv_budget instead"
        )

    @property
    def deepest(self) -> int | None:
        """There is none."""
        return None

    def layers(self, level: int) -> int:
        """Those of the block, whatever the level."""
        return self.block

    def most(self, level: int) -> int:
        """The level."""
        return level

    def work(self, level: int, iterations: int, tokens: int) -> tuple[int, int]:
        """The block for each iteration; coda and head, too, but for the last one of a token."""
        more = 0 if self.checked is None else iterations - tokens
        return self.block * iterations + (self.checked or 0) * more, more
