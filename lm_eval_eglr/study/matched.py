"""Stores sorted into what a study compares: a task's grid, and plain rollouts of the same problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from eglr_selectors import ParsedPool
from eglr_selectors.pool import Cell

from lm_eval_eglr.reports.baseline_runs import is_grid, temperature_run
from lm_eval_eglr.store import Store
from lm_eval_eglr.store.vocabulary import read_vocabulary


@dataclass(frozen=True, eq=False)
class Matched:
    """One task: the pools of its grid, and plain rollouts (span 0) of the same problems if there are any.

    Attributes:
        title: Names the task, and the store where several have it.
        store: Store of the grid.
        grid: Pools of the grid, one per problem.
        plain: Pools of span 0 for the same problems in the same order; empty if there is no such run.
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
    def spans(self) -> list[int]:
        """The spans above 0."""
        return sorted({cell.span for cell in self.cells} - {0})

    @property
    def has_temperatures(self) -> bool:
        """Whether some cell of the grid is sampled."""
        return any(cell.temperature for cell in self.cells)

    @cached_property
    def vocabulary(self) -> list[str]:
        """Text of each token id; empty if the store has none."""
        return read_vocabulary(self.store.folder)

    def part(self, *, span: int | None = None, greedy: bool | None = None) -> list[ParsedPool]:
        """Returns a part of every pool of the grid, by span and by whether it was decoded at T = 0."""
        return [
            parsed.subset(
                lambda rollout: (
                    (span is None or rollout.cell.span == span)
                    and (greedy is None or (rollout.cell.temperature == 0) == greedy)
                )
            )
            for parsed in self.grid
        ]


def match_stores(stores: Sequence[Store]) -> list[Matched]:
    """Finds every grid, and beside it the first run of span 0 of the same model, prompts and problems.

    Problems that the plain run does not have are left out.

    Raises:
        ValueError: If no store holds a grid.
    """
    tables = [(store, task, store.documents(task)) for store in stores for task in store.tasks]
    grids = [entry for entry in tables if is_grid([document.parsed for document in entry[2]])]
    if not grids:
        names = ", ".join(str(store.folder) for store in stores)
        raise ValueError(f"{names}: none holds a grid with spans above 0")
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
