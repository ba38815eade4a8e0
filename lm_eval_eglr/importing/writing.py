"""Imported pools as a store: on the disk, or in memory for a command that only reads."""

from __future__ import annotations

import itertools
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tqdm.auto import tqdm

from lm_eval_eglr.importing.imported import Imported, Source
from lm_eval_eglr.store import Manifest, Store, StoreWriter
from lm_eval_eglr.store.pool_schema import WITHOUT_COST, WITHOUT_TELEMETRY

SYNCED_TOGETHER = 64
"""Pools that a power cut can take away again; the source still has them, and the next import adds them."""
UNKNOWN = "unknown model"


def _manifest(model: str | None, axis: str | None, form: str | None) -> Manifest:
    """The manifest of a store of imported rollouts: whose they are, and that others made them."""
    try:
        ours = version("lm-eval-eglr")
    except PackageNotFoundError:
        ours = "unknown"
    fingerprint = {"model": model or UNKNOWN, "imported": form or "several formats"}
    if axis == "R":
        fingerprint["axis"] = axis
    return Manifest(fingerprint, {"lm-eval-eglr": ours})


def store_in_memory(folder: Path, imported: Imported, form: str | None) -> Store:
    """Imported pools as the commands read a store, without writing one."""
    axis = imported.pools[0].pool.axis.symbol if imported.pools else None
    return Store(folder, _manifest(imported.model, axis, form), imported.pools, ())


def write_store(folder: Path, source: Source, form: str | None) -> int:
    """Writes pools into a store one by one; what is there already stays, so a stopped import can go on.

    Returns:
        Number of pools that were not there.

    Raises:
        StoreError: If the folder holds other rollouts.
    """
    counts = source.pools.counts
    # Texts alone need a third of the columns, and all files of a store have the same ones.
    unknown = (frozenset() if counts.telemetry else WITHOUT_TELEMETRY) | (
        frozenset() if counts.cost else WITHOUT_COST
    )
    writer = StoreWriter(folder, unknown=unknown)
    written = 0
    with writer.writing(_manifest(source.model, counts.axis, form)):
        writer.plan(stored.key for stored in source.pools)
        pools = tqdm(source.pools, desc="pools", unit="pool", disable=None)
        missing = ((each.key, each.pool) for each in pools if not writer.holds(each.key, each.pool))
        while count := writer.append_all(itertools.islice(missing, SYNCED_TOGETHER)):
            written += count
    return written
