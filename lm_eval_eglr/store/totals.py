"""What all pools of a store cost together, and of which pools that was said."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eglr_selectors import PoolCost

from lm_eval_eglr.store.atomic_files import canonical, digest
from lm_eval_eglr.store.pool_file import decode_cost


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the pools of a store. They are derived: the pools themselves decide.

    Attributes:
        of: Digest of the names of the pools' files, which hold the digests of their contents. Totals
            whose digest is not that of the files there are of an earlier state.
        pools: Number of pools.
        rollouts: Number of rollouts.
        generated_tokens: Their tokens, as far as they are known.
        without_cost: Pools whose cost is not known; ``cost`` leaves them out.
        cost: Sum over the other pools, work that rollouts of one pool shared counted once.
    """

    of: str
    pools: int = 0
    rollouts: int = 0
    generated_tokens: int = 0
    without_cost: int = 0
    cost: PoolCost = dataclasses.field(default_factory=PoolCost)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Totals:
        """Reads what :func:`dataclasses.asdict` made."""
        return cls(**{**content, "cost": PoolCost(**content["cost"])})


def names_digest(names: Iterable[str]) -> str:
    """The digest of a set of file names."""
    return digest(canonical(sorted(names)).encode())


def totals_of(paths: Iterable[Path]) -> Totals:
    """Sums up the pools of these files; the same for any order of them.

    Raises:
        StoreError: If a file is damaged.
    """
    paths = list(paths)
    rollouts, tokens, costs = 0, 0, []
    for path in paths:
        count, of_them, cost = decode_cost(path)
        rollouts += count
        tokens += of_them
        costs += [] if cost is None else [cost]
    sums: dict[str, Any] = {}
    for field in dataclasses.fields(PoolCost):
        values = [getattr(cost, field.name) for cost in costs]
        sums[field.name] = math.fsum(values) if field.type == "float" else sum(values)
    names = names_digest(path.name for path in paths)
    return Totals(names, len(paths), rollouts, tokens, len(paths) - len(costs), PoolCost(**sums))
