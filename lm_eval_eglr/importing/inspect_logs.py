"""Logs of Inspect (inspect_ai): ``.eval`` archives and JSON logs; each epoch of a sample is a rollout."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from eglr_selectors import Cell

from lm_eval_eglr.importing.imported import (
    ImportOptions,
    Pools,
    Source,
    imported_pool,
    json_fields,
    reference_of,
    temperature_of,
)
from lm_eval_eglr.importing.json_lines import read_json
from lm_eval_eglr.importing.openai_responses import prompt_of, rollout_of
from lm_eval_eglr.store import StoredPool

SUFFIXES = (".eval", ".json")
ZSTANDARD = 93  # a method of compression that Python's zipfile knows from 3.14 on
LOCAL_HEADER = 30  # bytes before the name in a member's local header


@dataclass(frozen=True, slots=True)
class Log:
    """One log: its head, and what its samples need to be read one by one."""

    path: Path
    head: dict[str, Any]

    @property
    def task(self) -> str:
        """The task's name, without the package that it is from."""
        return str(self.head["eval"].get("task", self.path.stem)).rpartition("/")[2]

    @property
    def model(self) -> str:
        """The model's name, as Inspect was given it."""
        return str(self.head["eval"].get("model") or "")

    @property
    def created(self) -> str:
        """When the evaluation began."""
        return str(self.head["eval"].get("created", ""))


def recognises(path: Path) -> bool:
    """Whether a path is a log, or a folder with some."""
    if path.is_dir():
        return next(path.glob("*.eval"), None) is not None or any(
            _is_log(each) for each in sorted(path.glob("*.json"))[:1]
        )
    return path.suffix == ".eval" or (path.suffix == ".json" and _is_log(path))


def _is_log(path: Path) -> bool:
    try:
        content = read_json(path)
    except ValueError:
        return False
    return isinstance(content, dict) and isinstance(content.get("eval"), dict) and "samples" in content


def read(path: Path, options: ImportOptions) -> Source:
    """Reads a log, or the newest log of each task in a folder.

    Raises:
        ValueError: If a log is damaged or unfinished, or a folder has logs of several models.
    """
    paths = (
        [path]
        if path.is_file()
        else sorted(each for each in path.iterdir() if each.suffix in SUFFIXES and each.is_file())
    )
    logs = [Log(each, _head(each)) for each in paths if each.suffix == ".eval" or _is_log(each)]
    if not logs:
        raise ValueError(f"{path}: no log of Inspect")
    models = sorted({log.model for log in logs})
    if len(models) > 1:
        raise ValueError(f"{path}: logs of several models ({', '.join(models)}): name those of one")
    newest = {log.task: log for log in sorted(logs, key=lambda log: log.created)}
    notes = []
    if len(newest) < len(logs):
        notes.append(f"{len(logs) - len(newest)} older logs of the same tasks are there; name one to take it")
    pools: list[StoredPool] = []
    for log in newest.values():
        read_pools, of_log = _read_log(log)
        pools += read_pools
        notes += of_log
    if not pools:
        raise ValueError(f"{path}: no sample has an output" + "".join(f"; {note}" for note in notes))
    return Source(models[0] or None, Pools.held(pools), tuple(notes))


def _read_log(log: Log) -> tuple[list[StoredPool], list[str]]:
    config = (log.head.get("plan") or {}).get("config") or log.head["eval"].get("model_generate_config") or {}
    temperature = temperature_of(config.get("temperature"), str(log.path))
    order = (log.head["eval"].get("dataset") or {}).get("sample_ids") or []
    position = {str(sample_id): i for i, sample_id in enumerate(order)}
    samples: dict[str, list[dict[str, Any]]] = {}
    empty = 0
    for sample in _samples(log):
        if (sample.get("output") or {}).get("choices"):
            samples.setdefault(str(sample.get("id")), []).append(sample)
        else:
            empty += 1
    pools = []
    for place, (sample_id, epochs) in enumerate(samples.items()):
        epochs.sort(key=lambda sample: int(sample.get("epoch", 1)))
        choices = [choice for sample in epochs for choice in _choices(sample)]
        rollouts = [
            rollout_of(choice, Cell(0, temperature, i), f"{log.path}, sample {sample_id}")
            for i, choice in enumerate(choices)
        ]
        first = epochs[0]
        target = first.get("target")
        pools.append(
            imported_pool(
                log.task,
                position.get(sample_id, place),
                rollouts,
                prompt=_prompt(first),
                reference=reference_of(target),
                fields={
                    "id": sample_id,
                    "problem": _as_text(first.get("input")),
                    **json_fields(first.get("metadata") or {}),
                },
                settings={"generate_config": json_fields(config)},
            )
        )
    notes = []
    if empty:
        notes.append(f"{log.path.name}: {empty} samples have no output and were left out")
    if log.head.get("status", "success") != "success":
        notes.append(f"{log.path.name}: the evaluation ended as {log.head['status']!r}, so this is a part")
    unread = sum(1 for pool in pools if pool.key.reference is None)
    if unread:
        notes.append(f"{log.path.name}: {unread} problems have no single target to grade against")
    return pools, notes


def _choices(sample: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The choices of one epoch, as an OpenAI-style server would have returned them."""
    attachments = sample.get("attachments") or {}
    for choice in sample["output"]["choices"]:
        message = choice.get("message") or {}
        content = _as_text(message.get("content"))
        yield {
            "message": {"content": attachments.get(content.removeprefix("attachment://"), content)},
            "finish_reason": choice.get("stop_reason"),
            "logprobs": choice.get("logprobs"),
        }


def _prompt(sample: Mapping[str, Any]) -> str:
    """What the model was last asked: the messages before its answer; the input where there are none."""
    messages = [each for each in sample.get("messages") or [] if isinstance(each, dict)]
    while messages and messages[-1].get("role") == "assistant":
        messages.pop()
    asked = [{"role": each.get("role"), "content": _as_text(each.get("content"))} for each in messages]
    return prompt_of({"messages": asked}) or _as_text(sample.get("input"))


def _as_text(content: Any) -> str:
    """Text of a message: itself, or its parts that are text; reasoning is no part of an answer."""
    if isinstance(content, list):
        texts = [each.get("text", each.get("content")) for each in content if isinstance(each, dict)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _head(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        return {key: value for key, value in read_json(path).items() if key != "samples"}
    with _archive(path) as archive:
        if "header.json" not in archive.namelist():
            raise ValueError(f"{path}: an unfinished log, it has no header; `inspect eval-retry` ends it")
        head = _member(path, archive, archive.getinfo("header.json"))
    if not isinstance(head.get("eval"), dict):
        raise ValueError(f"{path}: not a log of Inspect")
    return head


def _samples(log: Log) -> Iterator[dict[str, Any]]:
    if log.path.suffix == ".json":
        yield from read_json(log.path).get("samples") or []
        return
    with _archive(log.path) as archive:
        for member in archive.infolist():
            if member.filename.startswith("samples/") and member.filename.endswith(".json"):
                yield _member(log.path, archive, member)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a log of Inspect ({error})") from None


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> dict[str, Any]:
    try:
        packed = member.compress_type == ZSTANDARD
        data = _zstandard(path, member) if packed else archive.read(member)
        content = json.loads(data)
    except (OSError, ValueError, zipfile.BadZipFile, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: {member.filename} is damaged ({reason})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: {member.filename}: expected a JSON object")
    return content


def _zstandard(path: Path, member: zipfile.ZipInfo) -> bytes:
    """Reads a member that zipfile cannot decompress; its place in the file is in the central directory."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(LOCAL_HEADER)
        file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
        data = file.read(member.compress_size)
    return bytes(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read())
