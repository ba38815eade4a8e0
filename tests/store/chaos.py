"""Kills runs and damages stores, as often as you like, and counts what was lost: ``make chaos``.

Three sweeps. *Kills*: whole runs of a tiny model, killed or interrupted at random moments, each followed by
the same command, until the store is whole. *Calls*: a writer killed before each single file call. *Damage*: a
flipped bit, a cut, a zeroed block, bytes that follow, a swap, another's name, a stranger's or a lost file. It
exits with 1 if a pool was lost, came twice or came back other than it was.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eglr_selectors import RolloutPool
from forked_run import start
from stored_runs import ANSWERS, MANIFEST, contents, make_tiny, small_head, small_pool
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.store import StoreError, StoreWriter, read_store
from lm_eval_eglr.store.vocabulary import read_vocabulary

FORK = multiprocessing.get_context("fork")
HEADS = [small_head(number) for number in range(4)]
POOLS = [small_pool(ANSWERS[number], number) for number in range(4)]
PIECES = ["a", "b", "c"]
SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
STRATEGIES: dict[str, dict[str, Any]] = {
    "grid": {},
    "eager": {
        "strategy": "eager",
        "n": 3,
        "branch_threshold": 2.7,
        "min_branch_distance": 4,
        **dict.fromkeys(("spans", "temperatures", "entropy_threshold")),
    },
    "adaptive_grid": {"strategy": "adaptive_grid", "n": 3, "wave": 2},
}


def write_all(folder: Path) -> None:
    """A run of four documents that serves what is there; in it, a pool between two rounds."""
    with StoreWriter(folder).writing(MANIFEST) as writer:
        writer.plan(HEADS)
        writer.describe_tokens(lambda: PIECES)
        if writer.load_round(HEADS[0]) is None:
            writer.append_round(HEADS[0], POOLS[0])
        for head, pool in zip(HEADS, POOLS, strict=True):
            served = writer.load(head)
            if served is None:
                writer.append(head, pool)
            elif served != pool:
                raise AssertionError(f"document {head.doc_id} was served with other rollouts")


def files(folder: Path) -> dict[str, bytes]:
    """All that a reader looks at."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def read(folder: Path) -> tuple[dict[int, RolloutPool], list[str]]:
    """Pools by document, and the vocabulary."""
    return {each.key.doc_id: each.pool for each in read_store(folder).pools}, read_vocabulary(folder)


def kills(count: int, rng: random.Random, folder: Path, found: Counter[str]) -> None:
    """Runs of the tiny model, each killed once or not at all, until ``count`` have been killed."""
    make_tiny(folder, problems=6, max_gen_toks=8)
    expected, seconds = {}, {}
    for name, options in STRATEGIES.items() if count else ():
        begun = time.monotonic()
        run = start(folder, folder / name, folder / f"{name}.txt", {}, **options)
        run.join()
        if run.exitcode:
            raise SystemExit((folder / f"{name}.log").read_text())
        expected[name], seconds[name] = contents(folder / name), time.monotonic() - begun
    names = list(STRATEGIES)
    before: dict[str, bytes] = {}
    number, killed, alive = 0, 0, True
    while killed < count or not alive:
        name = names[number % len(names)]
        store = folder / f"killed.{number}"
        run = start(folder, store, folder / "killed.txt", {}, **STRATEGIES[name])
        if killed < count:
            run.join(rng.uniform(0.05, 1) * seconds[name])
            alive = run.exitcode is not None
            if not alive:
                sent = rng.choice(SIGNALS)
                os.kill(run.pid or 0, sent)
                killed += 1
                found[f"killed by {sent.name}"] += 1
        run.join()
        alive = run.exitcode == 0
        left = contents(store) if store.is_dir() else {}
        found["pools lost"] += len(before.keys() - left.keys())
        found["pools that differ"] += sum(expected[name].get(key) != data for key, data in left.items())
        before = left
        if alive:
            found["runs continued to their end"] += 1
            found["pools missing at the end"] += len(expected[name].keys() - left.keys())
            number, before = number + 1, {}


def kill_before_calls(count: int, rng: random.Random, folder: Path, found: Counter[str]) -> None:
    """A writer that is killed before its first file call, its second, and so on, and then written again."""
    write_all(folder / "whole")
    expected = files(folder / "whole")
    for call in range(1, 1000):
        store = folder / f"call{call}"
        process = FORK.Process(target=_write_until, args=(store, call))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        found["writers killed before a file call"] += 1
        left = contents(store) if store.is_dir() else {}
        found["pools that differ"] += sum(expected.get(f"pools/{key}") != data for key, data in left.items())
        if (store / "manifest.json").exists():
            found["pools lost"] += len(left) - len(read_store(store).pools)
        write_all(store)
        found["pools missing at the end"] += len(expected.keys() - files(store).keys())
        found["pools that differ"] += files(store) != expected


def _write_until(store: Path, last: int) -> None:
    events = {"open", "os.rename", "os.remove", "os.mkdir", "os.listdir"}
    calls = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if event in events and str(store) in str(arguments[0]):
            calls += 1
            if calls == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    write_all(store)
    os._exit(0)


Damage = Callable[[Path, Path, random.Random], None]


def _flip(path: Path, other: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _cut(path: Path, other: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def _zero(path: Path, other: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    begin = rng.randrange(len(data))
    end = min(len(data), begin + 512)
    path.write_bytes(data[:begin] + bytes(end - begin) + data[end:])


def _append(path: Path, other: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(7))


def _swap(path: Path, other: Path, rng: random.Random) -> None:
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def _rename(path: Path, other: Path, rng: random.Random) -> None:
    """Puts a file in the place of another, checksum and all, which no checksum can notice."""
    mine, theirs = path.name.split("."), other.name.split(".")
    shutil.copy(path, other.with_name(".".join([*theirs[:-2], *mine[-2:]])))
    other.unlink()


def _lose(path: Path, other: Path, rng: random.Random) -> None:
    path.unlink()


def _stray(path: Path, other: Path, rng: random.Random) -> None:
    shutil.copy(path, path.with_name(f"{path.stem} (1){path.suffix}"))


DAMAGES: list[Damage] = [_flip, _flip, _flip, _cut, _cut, _zero, _append, _swap, _rename, _lose, _stray]


def damage(count: int, rng: random.Random, folder: Path, found: Counter[str]) -> None:
    """Stores with one damage each: noticed or without effect, and mended by the next run."""
    write_all(folder / "sound")
    sound, whole = read(folder / "sound"), files(folder / "sound")
    for number in range(count):
        store = folder / f"damaged{number}"
        shutil.copytree(folder / "sound", store)
        harm = rng.choice(DAMAGES)
        if harm is _rename or harm is _swap:
            path, other = rng.sample(sorted((store / "pools").iterdir()), 2)
        else:
            path = other = store / rng.choice(sorted(whole))
        harm(path, other, rng)
        found[f"damaged by {harm.__name__[1:]}"] += 1
        _judge(store, sound, harm, found)
        manifest = path.name == "manifest.json"
        try:
            write_all(store)
        except StoreError:
            # Nobody knows whose rollouts these are; the pools are left as they are.
            found["runs refused for want of a manifest"] += manifest
            found["pools missing at the end"] += not manifest
            continue
        after, pieces = read(store)
        found["pools lost"] += len(sound[0].keys() - after.keys())
        found["pools that differ"] += sum(
            after[key] != pool for key, pool in sound[0].items() if key in after
        )
        found["stores mended by the next run"] += (after, pieces) == sound
        shutil.rmtree(store)


def _judge(
    store: Path, sound: tuple[dict[int, RolloutPool], list[str]], harm: Damage, found: Counter[str]
) -> None:
    """No reader may give other pools than there were, and verify-store calls nothing whole that is not."""
    code = CliRunner().invoke(app, ["verify-store", str(store)]).exit_code
    try:
        pools, pieces = read(store)
    except StoreError:
        found["refused by readers"] += 1
        found["called whole and refused"] += code == 0
        return
    found["pools that differ"] += sum(sound[0][number] != pool for number, pool in pools.items())
    if (pools, pieces) == sound:
        found["read as before"] += 1  # rounds, locks and strays are no part of it, and JSON has blanks
    else:
        found["read without what was lost"] += 1
        found["called whole and incomplete"] += code == 0
    if harm is not _stray:
        found["found by verify-store only"] += code != 0 and (pools, pieces) == sound


FAULTS = (
    *("pools lost", "pools that differ", "pools missing at the end"),
    *("called whole and refused", "called whole and incomplete"),
)


def main() -> None:
    """Runs the sweeps and prints their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--damage", type=int, default=420)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # each of them says what was found
    faults = 0
    with tempfile.TemporaryDirectory() as root:
        for name, sweep in (("kills", kills), ("calls", kill_before_calls), ("damage", damage)):
            rng, found = random.Random(options.seed), Counter(dict.fromkeys(FAULTS, 0))
            begun = time.monotonic()
            folder = Path(root) / name
            folder.mkdir()
            sweep(getattr(options, name, 0), rng, folder, found)
            print(f"{name} ({time.monotonic() - begun:.0f} s)", flush=True)
            for what, number in found.items():
                print(f"  {what}: {number}")
                faults += number if what in FAULTS else 0
    print(f"faults: {faults}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
