"""The slots of the cache, one per live row: forks take those of dead rows, and holes are closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lm_eval_eglr.decoding.row_cache import RowCache
from lm_eval_eglr.decoding.rows import Request, Row


def place_forks(
    rows: list[Row],
    cache: RowCache,
    forks: Sequence[tuple[int, Row]],
    dead: Sequence[int],
    *,
    limit: int,
    can_wait: Callable[[Request], bool],
) -> list[Row]:
    """Gives forked rows the slots of dead ones, then new ones, and closes the holes that are left.

    Args:
        rows: The live rows in the order of their slots, without gaps; changed here.
        cache: Holds their keys and values.
        forks: Slots of rows that fork, with the new rows.
        dead: Slots of rows that have ended; none of them forks.
        limit: Most live rows; more only for rows that cannot wait.
        can_wait: Whether rows of a request may.

    Returns:
        The forked rows that there was no room for.
    """
    ordered = sorted(
        forks, key=lambda fork: can_wait(fork[1].job.request)
    )  # those that cannot wait come first
    room = len(dead) + max(0, limit - len(rows))
    room = max(room, sum(not can_wait(row.job.request) for _, row in ordered))
    placed, surplus = ordered[:room], [row for _, row in ordered[room:]]
    if placed:
        targets = list(dead[: len(placed)])
        targets += range(len(rows), len(rows) + len(placed) - len(targets))
        length = max(row.position for _, row in placed)
        cache.reserve(max(len(rows), max(targets) + 1), length)
        # A dead row is no fork's source, so the order of the copies does not matter.
        cache.copy_rows([number for number, _ in placed], targets, length)
        for (_, row), target in zip(placed, targets, strict=True):
            if target < len(rows):
                rows[target] = row
            else:
                rows.append(row)
    for hole in sorted(dead[len(placed) :], reverse=True):
        last = len(rows) - 1
        if hole < last:
            cache.copy_rows([last], [hole], rows[last].length)
            rows[hole] = rows[last]
        rows.pop()
    return surplus
