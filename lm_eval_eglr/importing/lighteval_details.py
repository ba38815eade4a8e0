"""Details of lighteval: ``details_TASK_DATE.parquet``, in a folder per model and date."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from eglr_selectors import Cell, Rollout

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
from lm_eval_eglr.importing.openai_responses import prompt_of
from lm_eval_eglr.store import StoredPool

COLUMNS = {"doc", "model_response"}
ROWS_AT_ONCE = 64
_NAME = re.compile(r"details_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.-]+)")


def recognises(path: Path) -> bool:
    """Whether a path is a file of details, or an output folder of lighteval."""
    if path.is_dir():
        return next(_files(path), None) is not None
    if path.suffix != ".parquet":
        return False
    try:
        return set(pq.read_schema(path).names) >= COLUMNS
    except (OSError, pa.ArrowException):
        return False


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("details_*.parquet") if path.is_file())


def read(path: Path, options: ImportOptions) -> Source:
    """Reads a file of details, or the newest details of each task in an output folder.

    lighteval keeps no reason why a text ended and no log-probabilities of sampled tokens.

    Raises:
        ValueError: If a file is something else, holds no generated texts, or models are mixed.
    """
    files = [path] if path.is_file() else sorted(_files(path), key=lambda each: (_date(each), each.name))
    newest = {_task(each): each for each in files}
    notes = []
    if len(newest) < len(files):
        notes.append(f"{len(files) - len(newest)} older details of the same tasks; name a file to take it")
    runs = {each: _run(each) for each in newest.values()}
    models = sorted({model for model, _ in runs.values() if model})
    if len(models) > 1:
        raise ValueError(f"{path}: details of several models ({', '.join(models)}): name the folder of one")
    tasks: list[Pools] = []
    for task, each in newest.items():
        temperature = temperature_of(runs[each][1], str(each))
        numbers = _document_numbers(each)
        tasks.append(Pools(functools.partial(_pools, each, task, temperature, numbers)))
        if without := len(numbers) - len(tasks[-1]):
            notes.append(f"{each.name}: {without} documents have no generated text and were left out")
    pools = Pools.joined(tasks)
    if not pools:
        raise ValueError(f"{path}: no generated texts; tasks scored by log-likelihoods have none")
    return Source(models[0] if models else None, pools, tuple(notes))


def _task(path: Path) -> str:
    found = _NAME.fullmatch(path.stem)
    return found["task"] if found else path.stem


def _date(path: Path) -> str:
    found = _NAME.fullmatch(path.stem)
    return found["date"] if found else ""


def _run(path: Path) -> tuple[str | None, Any]:
    """Model and temperature: from the folders' names, and the results file of that date if there is one."""
    parts = path.resolve().parts
    if "details" not in parts[:-2]:
        return None, None
    place = len(parts) - 1 - parts[::-1].index("details")
    model = "/".join(parts[place + 1 : -2]) or None
    results = Path(*parts[:place], "results", *parts[place + 1 : -2], f"results_{_date(path)}.json")
    if not results.is_file():
        return model, None
    general = read_json(results).get("config_general") or {}
    config = general.get("model_config") or {}
    parameters = config.get("generation_parameters") or {}
    return str(config.get("model_name") or model), parameters.get("temperature")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for batch in pq.ParquetFile(path).iter_batches(ROWS_AT_ONCE, use_threads=False):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from None


def _pools(path: Path, task: str, temperature: float | None, numbers: Sequence[int]) -> Iterator[StoredPool]:
    for number, row in enumerate(_rows(path)):
        doc, response = row.get("doc"), row.get("model_response")
        if not isinstance(doc, dict) or not isinstance(response, dict):
            raise ValueError(f"{path}, row {number}: not details of lighteval, without doc or model_response")
        texts = [text for text in response.get("text") or [] if isinstance(text, str)]
        if not texts:
            continue
        tokens = _without_padding([tuple(ids or ()) for ids in response.get("output_tokens") or []])
        if len(tokens) != len(texts):
            tokens = [()] * len(texts)
        rollouts = [
            Rollout(text, Cell(0, temperature, i), tokens=ids)
            for i, (text, ids) in enumerate(zip(texts, tokens, strict=True))
        ]
        # A column of structs has an entry for every key of any document, so absent ones are None.
        specific = {key: value for key, value in (doc.get("specific") or {}).items() if value is not None}
        yield imported_pool(
            task,
            numbers[number],
            rollouts,
            prompt=_prompt(response.get("input")) or str(doc.get("query") or ""),
            reference=reference_of(_gold(doc)),
            fields={"problem": str(doc.get("query") or ""), "id": doc.get("id"), **json_fields(specific)},
            settings={"max_tokens": doc.get("generation_size"), "stop": doc.get("stop_sequences")},
        )


def _document_numbers(path: Path) -> Sequence[int]:
    """The documents' own numbers, since lighteval shuffles them; their places where they have none."""
    ids = [str((row.get("doc") or {}).get("id")) for row in _rows(path)]
    if all(each.isdecimal() for each in ids) and len(set(ids)) == len(ids):
        return [int(each) for each in ids]
    return range(len(ids))


def _without_padding(batch: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Token ids without what transformers fills up a batch with: repetitions of the end token."""
    if len({len(ids) for ids in batch}) != 1 or not batch[0]:
        return batch
    trimmed = []
    for ids in batch:
        end = len(ids)
        while end > 1 and ids[end - 1] == ids[end - 2]:
            end -= 1
        trimmed.append(ids[:end])
    return trimmed


def _prompt(asked: Any) -> str:
    """The prompt as text; a chat of which one message was made is that message."""
    if isinstance(asked, list):
        return prompt_of({"messages": asked}) if asked and isinstance(asked[0], dict) else ""
    return asked if isinstance(asked, str) else ""


def _gold(doc: dict[str, Any]) -> Any:
    choices, index = doc.get("choices") or [], doc.get("gold_index")
    if isinstance(index, list):
        golds = [choices[i] for i in index if 0 <= i < len(choices)]
        return golds or None
    return choices[index] if isinstance(index, int) and 0 <= index < len(choices) else None
