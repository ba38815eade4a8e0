"""Tasks of a user's own that name the filter ``eglr_select``: they ask for pools and mark their oracles."""

from __future__ import annotations

import functools
import inspect
import math
from dataclasses import fields
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.filters.selection import TakeFirstFilter

from lm_eval_eglr.harness.filters import (
    PoolReader,
    SelectedText,
    SelectFilter,
    drop_repeated,
    keep_all_texts,
    pool_reader,
)
from lm_eval_eglr.harness.instances import PoolRequest
from lm_eval_eglr.harness.row_order import USES_REFERENCE

READER_OPTIONS = ("reference_key", "rules", "fallbacks")


def adapt(task: Any) -> None:
    """Lets a task whose pipelines begin with ``eglr_select`` ask hf-eglr for pools.

    Its reference answers are its targets, all its pipelines read a pool once, and the names of rows of
    oracles say that they use the reference. A task without the filter is left alone.

    Raises:
        ValueError: If the filter is given something wrong or stands behind another filter.
    """
    if not isinstance(task, ConfigurableTask) or asks_for_pools(task):
        return
    pipelines = [each for each in task._filters if any(_is_select(step) for step in each.filters)]
    if not pipelines:
        return
    if task.OUTPUT_TYPE != "generate_until":
        raise ValueError(f"{task.task_name}: eglr_select selects from texts; expected generate_until")
    readers: dict[str, PoolReader] = {}
    for pipeline in pipelines:
        first, *others = pipeline.filters
        where = f"{task.task_name}, filter {pipeline.name}"
        if not _is_select(first) or any(_is_select(step) for step in others):
            raise ValueError(f"{where}: eglr_select must be the first step, and the only one of its kind")
        options = _options(first, where)
        reading = {key: options.pop(key) for key in READER_OPTIONS if key in options}
        reader = readers.setdefault(repr(reading), _reader(task, reading, where))
        make = functools.partial(SelectFilter, reader=reader, **options)
        try:
            made = make()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from None
        # What is left is one text, of which lm_eval's usual last step would take the first letter.
        pipeline.filters = [make, *(step for step in others if _class_of(step) is not TakeFirstFilter)]
        if made.selector.uses_reference:
            pipeline.name = pipeline.name.removesuffix(USES_REFERENCE) + USES_REFERENCE
    _ask_for_pools(task, next(iter(readers.values())))


def asks_for_pools(task: Any) -> bool:
    """Whether a task has been adapted."""
    return getattr(task, "_eglr_reader", None) is not None


def _ask_for_pools(task: Any, reader: PoolReader) -> None:
    """Lets a task build requests for pools, log all their texts, and leave out what is undefined."""
    task._eglr_reader = reader
    build, score = task.build_all_requests, task.process_results

    @functools.wraps(build)
    def build_all_requests(**kwargs: Any) -> None:
        build(**kwargs)
        task._instances = [_pool_request(instance, reader) for instance in task._instances]

    def apply_filters() -> None:
        drop_repeated(task._instances)
        for pipeline in task._filters:
            pipeline.apply(task._instances)
        keep_all_texts(task._instances, reader)

    @functools.wraps(score)
    def process_results(doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        scores: dict[str, Any] = score(doc, results)
        if isinstance(results[0], SelectedText) and not results[0].selection.defined:
            return dict.fromkeys(scores, math.nan)
        return scores

    task.build_all_requests, task.apply_filters = build_all_requests, apply_filters
    task.process_results = process_results


def _is_select(step: Any) -> bool:
    return _class_of(step) is SelectFilter


def _class_of(step: Any) -> Any:
    return step.func if isinstance(step, functools.partial) else step


def _options(step: functools.partial[Any], where: str) -> dict[str, Any]:
    """The options of the filter, as the YAML file has them."""
    known = [
        name for name in inspect.signature(SelectFilter).parameters if name not in ("reader", "by_default")
    ]
    for key, value in step.keywords.items():
        if key not in known:
            raise ValueError(f"{where}: {key}={value!r}: eglr_select takes {', '.join(known)}")
    return dict(step.keywords)


def _reader(task: Any, options: dict[str, Any], where: str) -> PoolReader:
    try:
        return pool_reader(**options, reference_of=functools.partial(_target, task))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _target(task: Any, doc: dict[str, Any]) -> Any:
    target = task.doc_to_target(doc)
    return target[0] if isinstance(target, list) and target else target


def _pool_request(instance: Instance, reader: PoolReader) -> PoolRequest:
    """The same request as one for a pool."""
    given = {field.name: getattr(instance, field.name) for field in fields(Instance) if field.init}
    return PoolRequest(
        **given,
        reference=reader.reference(instance.doc),
        rules=reader.rules_of(instance.doc),
        fallbacks=reader.fallbacks,
    )
