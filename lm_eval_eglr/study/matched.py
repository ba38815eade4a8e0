"""Stores sorted into what a study compares: a task's grid, and plain rollouts of the same problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from eglr_selectors import ParsedPool
from eglr_selectors.depth_axis import DepthAxis, axis_of, baseline_depth
from eglr_selectors.pool import Cell

from lm_eval_eglr.reports.baseline_runs import depth_axis, is_grid, temperature_run
from lm_eval_eglr.store import Store
from lm_eval_eglr.store.vocabulary import read_vocabulary


@dataclass(frozen=True, eq=False)
class Matched:
    """One task: the pools of its grid, and plain rollouts of the same problems if there are any.

    Plain rollouts are those of temperature alone: of span 0, or of the grid's deepest recurrences.

    Attributes:
        title: Names the task, and the store where several have it.
        store: Store of the grid.
        grid: Pools of the grid, one per problem.
        plain: Pools of plain rollouts for the same problems in the same order; empty if there is no such run.
    """

    title: str
    store: Store
    grid: list[ParsedPool]
    plain: list[ParsedPool]

    @property
    def problems(self) -> int:
        """Number of problems."""
        return len(self.grid)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Cells of the grid."""
        return tuple(rollout.cell for rollout in self.grid[0])

    @property
    def axis(self) -> DepthAxis:
        """The depth axis of the grid."""
        return axis_of(self.cells)

    @property
    def baseline(self) -> int:
        """The depth of plain rollouts."""
        return baseline_depth(self.cells)

    @property
    def depths(self) -> list[int]:
        """The other depths."""
        return sorted({cell.depth for cell in self.cells} - {self.baseline})

    @property
    def has_temperatures(self) -> bool:
        """Whether some cell of the grid is sampled."""
        return any(cell.temperature for cell in self.cells)

    @cached_property
    def vocabulary(self) -> list[str]:
        """Text of each token id; empty if the store has none."""
        return read_vocabulary(self.store.folder)

    def part(
        self, *, depth: int | tuple[int, ...] | None = None, greedy: bool | None = None
    ) -> list[ParsedPool]:
        """Returns a part of every pool of the grid, by depth and by whether it was decoded at T = 0."""
        depths = (depth,) if isinstance(depth, int) else depth
        return [
            parsed.subset(
                lambda rollout: (
                    (depths is None or rollout.cell.depth in depths)
                    and (greedy is None or (rollout.cell.temperature == 0) == greedy)
                )
            )
            for parsed in self.grid
        ]


def match_stores(stores: Sequence[Store]) -> list[Matched]:
    """Finds every grid, and beside it the first plain run of the same model, prompts and problems.

    Problems that the plain run does not have are left out.

    Raises:
        ValueError: If no store holds a grid, or grids have both depth axes, which no table has room for.
    """
    tables = [(store, task, store.documents(task)) for store in stores for task in store.tasks]
    grids = [entry for entry in tables if is_grid([document.parsed for document in entry[2]])]
    if not grids:
        names = ", ".join(str(store.folder) for store in stores)
        raise ValueError(f"{names}: none holds a grid of several depths")
    axes = {depth_axis([document.parsed for document in entry[2]]).symbol for entry in grids}
    if len(axes) > 1:
        raise ValueError(
            "stores: grids over spans (L) and over recurrences (R); give those of one depth axis at a time"
        )
    tasks = [task for _, task, _ in grids]
    found = []
    for store, task, documents in grids:
        others = [(other, theirs) for other, name, theirs in tables if name == task]
        run = temperature_run(store, documents, others)
        pools = [document.parsed for document in documents]
        title = task if tasks.count(task) == 1 else f"{task} ({store.folder.name})"
        if run is not None:
            found.append(Matched(title, store, [pools[i] for i in run.places], list(run.pools)))
        else:
            found.append(Matched(title, store, pools, []))
    return found
