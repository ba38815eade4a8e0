"""The formats by name, and which of them a file or folder has."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lm_eval_eglr.importing import (
    exported_rollouts,
    inspect_logs,
    lighteval_details,
    lm_eval_output,
    openai_responses,
    search_and_learn,
    text_pools,
)
from lm_eval_eglr.importing.imported import Imported, ImportOptions, Pools, Source
from lm_eval_eglr.importing.json_lines import check_regular, first_record, read_records
from lm_eval_eglr.store import PoolKey, StoredPool


@dataclass(frozen=True, slots=True)
class Format:
    """A format that rollouts are read from.

    Attributes:
        what: What it is, for lists.
        recognises: Whether a file or folder looks like it; raises nothing.
        read: Reads a file or folder.
    """

    what: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, ImportOptions], Source]


# In the order in which they are tried; none of them takes another's files.
FORMATS: dict[str, Format] = {
    "lm_eval": Format(
        "samples_*.jsonl of lm_eval --log_samples, or its output folder",
        lm_eval_output.recognises,
        lm_eval_output.read,
    ),
    "texts": Format(
        'JSON lines of {"prompt": ..., "texts": [...], "reference": ...}',
        text_pools.recognises,
        text_pools.read,
    ),
    "openai": Format(
        "responses of /v1/completions, /v1/chat/completions or /v1/responses, or a batch's output",
        openai_responses.recognises,
        openai_responses.read,
    ),
    "lighteval": Format(
        "details_*.parquet of lighteval, or its output folder",
        lighteval_details.recognises,
        lighteval_details.read,
    ),
    "inspect": Format(
        ".eval or JSON logs of Inspect, or a folder of them", inspect_logs.recognises, inspect_logs.read
    ),
    "search_and_learn": Format(
        "*_completions.jsonl of search-and-learn", search_and_learn.recognises, search_and_learn.read
    ),
    "eglr": Format("eglr export --format jsonl", exported_rollouts.recognises, exported_rollouts.read),
}


def format_of(path: Path) -> str | None:
    """The name of a path's format; ``None`` if it has none that is known."""
    if not (path.is_dir() or path.is_file()):
        return None  # a pipe or a device could be waited for without end
    return next((name for name, form in FORMATS.items() if form.recognises(path)), None)


def read_rollouts(
    sources: Sequence[Path], form: str | None = None, options: ImportOptions | None = None
) -> Imported:
    """Reads rollouts of one model from files or folders into memory; see :func:`open_rollouts`."""
    source = open_rollouts(sources, form, options)
    pools = sorted(source.pools, key=lambda stored: stored.key.place)
    return Imported(source.model, tuple(pools), source.notes)


def open_rollouts(
    sources: Sequence[Path], form: str | None = None, options: ImportOptions | None = None
) -> Source:
    """Goes through rollouts of one model in files or folders once, to read them pool by pool afterwards.

    Pools of several sources for one document of one task are repeats of it, numbered in the order of the
    sources.

    Args:
        sources: Files or folders.
        form: Name of their format; recognised by their content if ``None``.
        options: What the user says of them.

    Raises:
        ValueError: If a source is not there, of no known format, damaged, or of another model.
    """
    if form is not None and form not in FORMATS:
        raise ValueError(f"format={form!r}: expected one of {', '.join(FORMATS)}")
    options = options or ImportOptions()
    read = [(path, _read(path, form, options)) for path in sources]
    models = {} if options.model else {source.model: path for path, source in read if source.model}
    if len(models) > 1:
        named = ", ".join(f"{model} in {path}" for model, path in models.items())
        raise ValueError(f"rollouts of several models ({named}): expected one model per store")
    for path, source in read:
        tasks = source.pools.counts.tasks
        if options.task is not None and len(tasks) > 1:
            raise ValueError(f"task={options.task!r}: {path} has several tasks ({', '.join(sorted(tasks))})")
    joined = Pools.joined([source.pools for _, source in read])
    pools = Pools(functools.partial(_numbered, joined, options), joined.counts)
    next(iter(pools), None)  # refuses an option that no pool can have before anything is written
    notes = [note for _, source in read for note in source.notes]
    return Source(options.model or next(iter(models), None), pools, tuple(notes))


def _numbered(pools: Pools, options: ImportOptions) -> Iterator[StoredPool]:
    """The pools of several sources under the keys that the user wants, those of one document numbered."""
    repeats: dict[tuple[str, int], int] = {}
    for stored in pools:
        key = _key(stored, options)
        document = (sys.intern(key.task), key.doc_id)
        repeat = repeats.get(document, 0)
        repeats[document] = repeat + 1
        yield StoredPool(key if key.repeat == repeat else replace(key, repeat=repeat), stored.pool)


def _key(stored: StoredPool, options: ImportOptions) -> PoolKey:
    key = stored.key if options.task is None else replace(stored.key, task=options.task)
    if options.rules is not None:
        key = replace(key, rules=options.rules)
    return key if options.fallbacks is None else replace(key, fallbacks=options.fallbacks)


def _read(path: Path, form: str | None, options: ImportOptions) -> Source:
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder")
    if (path / "manifest.json").is_file():
        raise ValueError(f"{path}: a rollout store already; every command takes it as it is")
    name = form or _format_told(path)
    if options.requests is not None and name != "openai":
        raise ValueError(f"requests={str(options.requests)!r}: for a batch's output, {path} is {name}")
    try:
        source = FORMATS[name].read(path, options)
    except (AttributeError, LookupError, TypeError) as error:
        # A stranger's file may hold anything anywhere; what each reader expects is where it reads it.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"{path}: not as {name} is known here ({reason})") from None
    except ValueError as error:
        # What a store refuses names no file, and is here the file's fault, not the store's.
        told = str(error)
        names_a_file = any(str(file) in told for file in (path, options.requests) if file is not None)
        raise ValueError(told if names_a_file else f"{path}: {told}") from None
    if not source.pools:
        raise ValueError(f"{path}: no rollouts in it")
    return source


def _format_told(path: Path) -> str:
    """The one format of a source.

    Raises:
        ValueError: If it has none, or is a folder that has files of several.
    """
    names = [name for name, form in FORMATS.items() if form.recognises(path)]
    if len(names) > 1:
        raise ValueError(
            f"{path}: has {' and '.join(names)}; name the files of one, or import with --format NAME"
        )
    if names:
        return names[0]
    known = "; ".join(f"{name}: {form.what}" for name, form in FORMATS.items())
    raise ValueError(f"{path}: {_what_it_is(path)}, of no known format ({known})")


def _what_it_is(path: Path) -> str:
    """What a source of no known format is, as far as a look at it tells.

    Raises:
        ValueError: If it is damaged, so that no format could be told.
    """
    if path.is_dir():
        return "a folder without files that could be told" if any(path.iterdir()) else "an empty folder"
    check_regular(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: an empty file")
    if path.suffix == ".parquet":
        try:
            return f"a table of {', '.join(pq.read_schema(path).names)[:200]}"
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path}: cannot be read as parquet ({reason})") from None
    if path.suffix not in (".json", ".jsonl"):
        record = first_record(path)
        return _keys(record) if record else "no JSON"
    first = next(read_records(path), None)
    if first is None:
        raise ValueError(f"{path}: an empty file")
    return _keys(first[1])


def _keys(record: dict[str, Any]) -> str:
    if {"results", "configs"} <= record.keys():
        return "results of lm_eval without samples, which --log_samples writes"
    return f"records of {', '.join(map(str, record))[:200] or 'nothing'}"
