"""Rollouts on disk: written as pools finish, read without torch or lm_eval."""

from lm_eval_eglr.store.atomic_files import StoreError
from lm_eval_eglr.store.manifest import Manifest
from lm_eval_eglr.store.pool_key import PoolKey
from lm_eval_eglr.store.reader import Document, Store, StoredPool, read_pools, read_store
from lm_eval_eglr.store.writer import StoreWriter

__all__ = [
    "Document",
    "Manifest",
    "PoolKey",
    "Store",
    "StoreError",
    "StoreWriter",
    "StoredPool",
    "read_pools",
    "read_store",
]
