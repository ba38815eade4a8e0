"""Imported pools as a store: on the disk, or in memory for a command that only reads."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tqdm.auto import tqdm

from lm_eval_eglr.importing.imported import Imported
from lm_eval_eglr.store import Manifest, Store, StoredPool, StoreError, StoreWriter
from lm_eval_eglr.store.pool_file import encode

UNKNOWN = "unknown model"


def manifest_of(imported: Imported, form: str | None) -> Manifest:
    """The manifest of a store of imported rollouts: whose they are, and that others made them."""
    try:
        ours = version("lm-eval-eglr")
    except PackageNotFoundError:
        ours = "unknown"
    fingerprint = {"model": imported.model or UNKNOWN, "imported": form or "several formats"}
    if imported.pools and imported.pools[0].pool.axis.symbol == "R":
        fingerprint["axis"] = "R"
    return Manifest(fingerprint, {"lm-eval-eglr": ours})


def store_in_memory(folder: Path, imported: Imported, form: str | None) -> Store:
    """Imported pools as the commands read a store, without writing one."""
    return Store(folder, manifest_of(imported, form), imported.pools, ())


def write_store(folder: Path, imported: Imported, form: str | None) -> int:
    """Writes imported pools into a store; what is there already stays, so a stopped import can go on.

    Returns:
        Number of pools that were not there.

    Raises:
        StoreError: If the folder holds other rollouts.
    """
    writer = StoreWriter(folder)
    written = 0
    with writer.writing(manifest_of(imported, form)):
        writer.plan(stored.key for stored in imported.pools)
        # Each pool is synced to the disk by itself, which takes minutes for tens of thousands.
        pools = tqdm(imported.pools, desc="pools", unit="pool", disable=None)
        for stored in _missing(writer, pools):
            writer.append(stored.key, stored.pool)
            written += 1
    return written


def _missing(writer: StoreWriter, pools: Iterable[StoredPool]) -> Iterable[StoredPool]:
    for stored in pools:
        there = writer.load(stored.key)
        if there is None:
            yield stored
        elif encode(stored.key, there) != encode(stored.key, stored.pool):
            key = stored.key
            raise StoreError(
                f"{writer.folder}: document {key.doc_id} of {key.task} is there with other rollouts; "
                "name another folder"
            )
