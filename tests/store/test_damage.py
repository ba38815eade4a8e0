"""Any single flipped or cut byte of a store is noticed or changes nothing."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from stored_runs import ANSWERS, write_small

from lm_eval_eglr.store import Store, StoreError, read_store
from lm_eval_eglr.store.vocabulary import read_vocabulary, write_vocabulary


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def read_all(folder: Path) -> tuple[Store, list[str]]:
    return read_store(folder), read_vocabulary(folder)


@pytest.mark.parametrize("seed", range(2))
def test_flipped_and_cut_bytes(tmp_path: Path, seed: int) -> None:
    original = write_small(tmp_path / "store", ANSWERS[:2])
    write_vocabulary(original, lambda: ["a", "b"], ".0.part")
    sound, words = read_all(original)
    rng = random.Random(seed)
    noticed = 0
    for path in files(original):
        data = path.read_bytes()
        for _ in range(30):
            position = rng.randrange(len(data))
            flipped = bytearray(data)
            flipped[position] ^= 1 << rng.randrange(8)
            for damaged in (bytes(flipped), data[:position]):
                path.write_bytes(damaged)
                try:
                    store, pieces = read_all(original)
                except StoreError:
                    noticed += 1
                    continue
                assert (store.manifest, store.pools, store.missing) == (
                    sound.manifest,
                    sound.pools,
                    sound.missing,
                )
                assert pieces == words
        path.write_bytes(data)
    assert noticed > 200
    assert read_all(original)[0].pools == sound.pools


def test_files_that_change_places_are_noticed(tmp_path: Path) -> None:
    store = write_small(tmp_path / "store")
    first, second = sorted((store / "pools").iterdir())[:2]
    shutil.copy(first, store / "pools" / second.name.replace("000001", "000007"))
    with pytest.raises(StoreError, match="damaged"):
        read_store(store)
