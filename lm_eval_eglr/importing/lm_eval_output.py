"""What ``lm_eval --output_path DIR --log_samples`` writes: samples_*.jsonl files beside a results file."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eglr_selectors import Cell, Rollout, Rules
from eglr_selectors.grading import DEFAULT

from lm_eval_eglr.importing.imported import (
    FALLBACKS,
    ImportOptions,
    Pools,
    Source,
    imported_pool,
    json_fields,
    reference_of,
)
from lm_eval_eglr.importing.json_lines import first_record, read_json, read_lines
from lm_eval_eglr.problems.tolerance import rules_of
from lm_eval_eglr.store import StoredPool

_NAME = re.compile(r"(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Run:
    """One model's newest run in an output folder.

    Attributes:
        folder: Where its files are.
        samples: The newest file of samples of each task; empty without ``--log_samples``.
        results: The newest results file, ``None`` if there is none.
        older: How many older files of samples there are.
    """

    folder: Path
    samples: dict[str, Path]
    results: Path | None
    older: int


def recognises(path: Path) -> bool:
    """Whether a path is a file of samples, or an output folder with some."""
    if path.is_dir():
        return any(run.samples for run in runs_in(path))
    return path.is_file() and {"doc_id", "resps", "filter"} <= first_record(path).keys()


def runs_in(folder: Path) -> list[Run]:
    """The runs in an output folder: its own files, or those in its subfolders, one of each model."""
    runs = []
    for each in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        samples = _by_date(each.glob("samples_*.jsonl"), "samples_")
        results = [path for path in _dated(each.glob("*.json"), "") if _is_results(path)]
        newest = {task: paths[-1] for task, paths in samples.items()}
        older = sum(len(paths) - 1 for paths in samples.values())
        if newest or results:
            runs.append(Run(each, newest, results[-1] if results else None, older))
    return runs


def _by_date(paths: Iterator[Path], prefix: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in _dated(paths, prefix):
        found.setdefault(_parts(path, prefix)[0], []).append(path)
    return found


def _dated(paths: Iterator[Path], prefix: str) -> list[Path]:
    named = [(_parts(path, prefix)[1], path) for path in paths]
    return [path for date, path in sorted(named) if date]


def _parts(path: Path, prefix: str) -> tuple[str, str]:
    """Task and date in the name of a file of samples; the date is empty if it has none."""
    found = _NAME.fullmatch(path.stem.removeprefix(prefix))
    return (found["task"], found["date"]) if found else (path.stem.removeprefix(prefix), "")


def _is_results(path: Path) -> bool:
    try:
        content = read_json(path)
    except ValueError:
        return False
    return isinstance(content, dict) and isinstance(content.get("results"), dict)


def read(path: Path, options: ImportOptions) -> Source:
    """Reads a file of samples, or the newest samples of each task in an output folder.

    Rules and fallbacks of this project's tasks come from the results file, which lies beside the samples.

    Raises:
        ValueError: If nothing there is text that a model generated, or a folder has runs of several models.
    """
    if path.is_file():
        return _read_files({_parts(path, "samples_")[0]: path}, _results_beside(path), path)
    run = samples_of(path)
    source = _read_files(run.samples, run.results, path)
    if not run.older:
        return source
    note = f"{run.older} older files of samples are in {run.folder}; name a file to take it"
    return Source(source.model, source.pools, (*source.notes, note))


def samples_of(folder: Path) -> Run:
    """The one run with samples in an output folder.

    Raises:
        ValueError: If there is none, or several models have one.
    """
    runs = [run for run in runs_in(folder) if run.samples]
    if not runs:
        raise ValueError(f"{folder}: no samples_*.jsonl; lm_eval writes them with --log_samples")
    if len(runs) > 1:
        names = ", ".join(run.folder.name for run in runs)
        raise ValueError(f"{folder}: runs of several models ({names}): name the folder of one")
    return runs[0]


def _results_beside(samples: Path) -> Path | None:
    date = _parts(samples, "samples_")[1]
    found = [path for path in samples.parent.glob(f"*_{date}.json") if _is_results(path)] if date else []
    return found[0] if found else None


def _read_files(samples: Mapping[str, Path], results: Path | None, folder: Path) -> Source:
    content: dict[str, Any] = {} if results is None else read_json(results)
    configs = content.get("configs") or {}
    tasks: list[Pools] = []
    notes = []
    for task, path in samples.items():
        try:
            tasks.append(Pools(functools.partial(_read_task, path, task, configs.get(task) or {})))
        except NotGenerated as error:
            notes.append(str(error))
    if not any(map(len, tasks)):
        raise ValueError("; ".join(notes) or f"{folder}: no samples")
    if (content.get("config") or {}).get("model") == "hf-eglr":
        notes.append("of an hf-eglr run lm_eval logs only the selected text; rollouts=DIR has all")
    return Source(_model(content, next(iter(samples.values()))), Pools.joined(tasks), tuple(notes))


def _model(content: Mapping[str, Any], samples: Path) -> str | None:
    name = content.get("model_name") or content.get("model_source")
    if not name:
        return samples.parent.name or None
    # Of a folder only the last part, as in the manifest of a store.
    return Path(str(name)).name if str(name).startswith(("/", ".")) else str(name)


class NotGenerated(ValueError):
    """A task whose responses are no texts, such as a multiple-choice task."""


def _read_task(path: Path, task: str, config: Mapping[str, Any]) -> Iterator[StoredPool]:
    metadata = config.get("metadata") or {}
    ours = isinstance(metadata, dict) and "prompt_sha256" in metadata
    rules = Rules.named(str(metadata["rules"])) if ours and "rules" in metadata else DEFAULT
    fallbacks = tuple(metadata.get("fallbacks") or ()) if ours else FALLBACKS
    seen = set()
    for where, sample in read_lines(path):
        if not {"doc_id", "resps", "filter", "doc"} <= sample.keys():
            raise ValueError(f"{where}: not a sample as lm_eval --log_samples writes it")
        if sample["doc_id"] in seen:
            continue  # one line per filter, all of the same responses
        seen.add(sample["doc_id"])
        doc = sample["doc"] if isinstance(sample["doc"], dict) else {"doc": sample["doc"]}
        texts = _texts(sample["resps"], where, task)
        prompt, settings = _arguments(sample.get("arguments"))
        temperature = _temperature(settings)
        fields = json_fields(doc)
        if "problem" not in fields and isinstance(doc.get("question"), str):
            fields["problem"] = doc["question"]
        target = sample.get("target")
        reference = None if target is None else str(target)
        yield imported_pool(
            task,
            int(sample["doc_id"]),
            tuple(Rollout(text, Cell(0, temperature, i)) for i, text in enumerate(texts)),
            prompt=prompt,
            reference=reference if ours else reference_of(target),
            fields=fields,
            settings=settings,
            rules=rules_of(doc, rules, reference) if ours else rules,
            fallbacks=fallbacks,
        )


def _texts(responses: Any, where: str, task: str) -> list[str]:
    texts = [text for group in responses for text in (group if isinstance(group, list) else [group])]
    if not texts:
        raise ValueError(f"{where}: a sample without responses")
    if not all(isinstance(text, str) for text in texts):
        raise NotGenerated(f"{where}: {task} is scored by log-likelihoods, it has no generated texts")
    return texts


def _arguments(arguments: Any) -> tuple[str, dict[str, Any]]:
    """The prompt and the generation options of a sample's first request."""
    first: Any = next(iter(arguments.values()), {}) if isinstance(arguments, dict) else {}
    if not isinstance(first, dict):
        return "", {}
    prompt, options = first.get("arg_0"), first.get("arg_1")
    if isinstance(prompt, list) and len(prompt) == 1:  # a chat that the server templates
        prompt = prompt[0]
    generation = json_fields(options) if isinstance(options, dict) else {}
    return prompt if isinstance(prompt, str) else "", {"generation_kwargs": generation}


def _temperature(settings: Mapping[str, Any]) -> float | None:
    options = settings.get("generation_kwargs", {})
    if options.get("do_sample") is False:
        return 0.0
    value = options.get("temperature")
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
