"""Rollouts on disk: written as pools finish, read without torch or lm_eval."""

from lm_eval_eglr.store.durable import StoreError
from lm_eval_eglr.store.head import PoolHead
from lm_eval_eglr.store.manifest import Manifest
from lm_eval_eglr.store.reader import Document, Store, StoredPool, merge_pools, read_pools, read_store
from lm_eval_eglr.store.writer import StoreWriter

__all__ = [
    "Document",
    "Manifest",
    "PoolHead",
    "Store",
    "StoreError",
    "StoreWriter",
    "StoredPool",
    "merge_pools",
    "read_pools",
    "read_store",
]
