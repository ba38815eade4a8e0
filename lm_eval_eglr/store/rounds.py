"""Pools between two rounds: complete as far as they go, kept so that a stopped run need not repeat them."""

from __future__ import annotations

import logging
from pathlib import Path

from eglr_selectors import RolloutPool

from lm_eval_eglr.store.durable import StoreError, write_whole
from lm_eval_eglr.store.folder import DAMAGED
from lm_eval_eglr.store.head import PoolHead
from lm_eval_eglr.store.pool_file import SUFFIX, decode, encode

logger = logging.getLogger(__name__)
ROUNDS = "rounds"


def write_round(folder: Path, head: PoolHead, pool: RolloutPool, scratch: str) -> None:
    """Writes a pool after its first round, beside the store's pools and in their format."""
    name, data = encode(head, pool)
    path = folder / ROUNDS / name
    path.parent.mkdir(exist_ok=True)
    write_whole(path, data, path.with_name(scratch))


def read_round(folder: Path, head: PoolHead) -> RolloutPool | None:
    """Returns what :func:`write_round` wrote, if anything; what is damaged is set aside."""
    for path in sorted((folder / ROUNDS).glob(f"{head.stem}.*{SUFFIX}")):
        try:
            return decode(path)[1]
        except StoreError as error:
            logger.warning("%s; it is set aside and decoded again", error)
            path.rename(path.with_name(DAMAGED + path.name))
    return None
