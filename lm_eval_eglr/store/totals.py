"""What all pools of a store cost together, and the digest of the pools that this covers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eglr_selectors import PoolCost, RolloutPool

from lm_eval_eglr.store.atomic_files import canonical, digest
from lm_eval_eglr.store.folder import PoolPath
from lm_eval_eglr.store.parquet_file import read_named_by_checksum
from lm_eval_eglr.store.pool_file import decode_cost

Counts = tuple[int, int, PoolCost | None]
"""Of a pool: its rollouts, their tokens, and what it cost."""
UNITS = ("flops_per_layer_token", "flops_per_head_evaluation")
SUMMED = [field.name for field in dataclasses.fields(PoolCost) if field.name not in UNITS]
LARGEST = 1e300


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the pools of a store. They are derived: the pools themselves decide.

    Attributes:
        of: Digest of the names of the pools' files, which hold the digests of their contents. Totals
            whose digest is not that of the files in the store are of an earlier state.
        pools: Number of pools.
        rollouts: Number of rollouts.
        generated_tokens: Their tokens, as far as they are known.
        without_cost: Pools whose cost is not known; ``cost`` leaves them out.
        cost: Sum over the other pools, work that rollouts of one pool shared counted once. What a unit of
            work costs is no sum, and is left at 0.
    """

    of: str
    pools: int = 0
    rollouts: int = 0
    generated_tokens: int = 0
    without_cost: int = 0
    cost: PoolCost = dataclasses.field(default_factory=PoolCost)

    def to_json(self) -> dict[str, Any]:
        """The totals as JSON-ready values."""
        content = dataclasses.asdict(self)
        content["cost"] = {name: content["cost"][name] for name in SUMMED}
        return content

    @classmethod
    def from_json(cls, content: Any) -> Totals:
        """Reads :meth:`to_json` back; what later versions may add is left unread.

        Raises:
            ValueError: If a value is missing or of another type.
        """
        kinds = {field.name: str(field.type) for field in dataclasses.fields(cls) if field.name != "cost"}
        sums = _checked(content, kinds)
        costs = {
            field.name: str(field.type) for field in dataclasses.fields(PoolCost) if field.name in SUMMED
        }
        return cls(**sums, cost=PoolCost(**_checked(content.get("cost"), costs)))


def _checked(content: Any, kinds: dict[str, str]) -> dict[str, Any]:
    """The values of a JSON object that have these names, if all are there and of these types."""
    if not isinstance(content, dict):
        raise ValueError(f"{content!r:.80}: expected a mapping")
    found = {}
    for name, kind in kinds.items():
        value: Any = content.get(name)
        if kind == "str":
            sound = isinstance(value, str)
        else:
            whole = isinstance(value, int) and not isinstance(value, bool)
            sound = (whole or (kind == "float" and isinstance(value, float))) and 0 <= value < LARGEST
        if not sound:
            expected = {"str": "text", "int": "an integer >= 0", "float": "a number >= 0"}[kind]
            raise ValueError(f"{name}={value!r:.80}: expected {expected}")
        found[name] = value
    return found


def names_digest(names: Iterable[str]) -> str:
    """The digest of a set of file names."""
    return digest(canonical(sorted(names)).encode())


def counts_of(pool: RolloutPool) -> Counts:
    """What a pool adds to the totals."""
    return len(pool), sum(len(rollout.tokens) for rollout in pool), pool.cost


def totals_of(entries: Iterable[PoolPath], known: Mapping[str, Counts] | None = None) -> Totals:
    """Sums up the pools of these files, whose rollouts are not read; the same for any order of them.

    Args:
        entries: The files.
        known: What the caller has read or written itself, by the names of the files. These are checked
            against the checksums in their names, and not unpacked.

    Raises:
        StoreError: If a file is damaged.
    """
    return sum_up({each.name: _counts(each, known or {}) for each in entries})


def _counts(entry: PoolPath, known: Mapping[str, Counts]) -> Counts:
    counts = known.get(entry.name)
    if counts is None:
        return decode_cost(entry.path)
    read_named_by_checksum(entry.path)
    return counts


def sum_up(pools: Mapping[str, Counts]) -> Totals:
    """Sums up pools that have been read.

    Args:
        pools: By the names of their files.
    """
    costs = [cost for _, _, cost in pools.values() if cost is not None]
    sums: dict[str, Any] = {}
    for name in SUMMED:
        values = [getattr(cost, name) for cost in costs]
        sums[name] = math.fsum(values) if isinstance(getattr(PoolCost(), name), float) else sum(values)
    return Totals(
        names_digest(pools),
        len(pools),
        sum(rollouts for rollouts, _, _ in pools.values()),
        sum(tokens for _, tokens, _ in pools.values()),
        len(pools) - len(costs),
        PoolCost(**sums),
    )
