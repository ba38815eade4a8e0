"""What is checked of a run as typed, before lm_eval loads the model."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import simple_parse_args_string

from lm_eval_eglr.backends.sampled_pools import SampledPools
from lm_eval_eglr.harness.config_files import has_our_class, has_our_filter
from lm_eval_eglr.harness.filter_tasks import adapt, asks_for_pools
from lm_eval_eglr.harness.generation import check_for_pool
from lm_eval_eglr.harness.processes import refuse_idle_processes
from lm_eval_eglr.harness.task import METADATA_OPTIONS, EGLRTask
from lm_eval_eglr.store.undecided import remembered_pairs

logger = logging.getLogger(__name__)

POOL_MODELS = ("hf-eglr", "vllm-eglr", "server-eglr")
"""Models that decode pools, and draw by a ``seed`` of theirs."""


def check_run(given: dict[str, Any]) -> None:
    """Checks the arguments of ``simple_evaluate`` as far as they concern us.

    Loads the tasks that are ours, so that a bad data file or a misspelt selector costs no loading of weights,
    and lets ``--seed`` seed the draws where ``model_args`` has no seed.

    Args:
        given: The arguments by name; changed where the above needs it.

    Raises:
        ValueError: For what cannot run as it is written.
    """
    arguments = _mapping(given.get("model_args"))
    model, specs = given["model"], given.get("tasks") or []
    is_ours = model in POOL_MODELS
    if is_ours:
        given["model_args"] = _with_seed(given.get("model_args"), arguments, given.get("random_seed", 0))
    manager = given.get("task_manager")
    if manager is None:
        if not is_ours:
            return  # its tasks are indexed and checked when lm_eval loads them
        manager = TaskManager(metadata=arguments | (given.get("metadata") or {}))
        given["task_manager"] = manager
    specs = specs if isinstance(specs, list) else [specs]
    ours = [spec for spec in specs if _is_ours(spec, manager)]
    if ours:
        _check_metadata(arguments, given.get("metadata") or {}, alone=len(ours) == len(specs))
        loaded = [_loaded(spec, manager) if spec in ours else [spec] for spec in specs]
        if not given.get("check_integrity"):  # which wants names
            given["tasks"] = [each for objects in loaded for each in objects]
    pools = bool(ours) or arguments.get("selector", "greedy") != "greedy"
    if is_ours and pools:
        if ours and model == "hf-eglr":  # the others can draw by request, too
            check_for_pool(_mapping(given.get("gen_kwargs")))
        refuse_response_cache(given.get("use_cache"))
        if given.get("predict_only") and not arguments.get("rollouts"):
            logger.warning(
                "predict_only keeps the texts alone; rollouts=DIR in --model_args keeps the rollouts too, to "
                "score them later with eglr select"
            )


def memory_of(lm: Any) -> AbstractContextManager[None]:
    """What a store remembers of the grader, and what is new, while a run with ``rollouts=DIR`` is scored."""
    inner = getattr(lm, "__dict__", {}).get("lm", lm)  # behind the response cache
    folder = getattr(inner, "store_folder", None)
    return nullcontext() if folder is None else remembered_pairs(folder)


def check_evaluation(given: Mapping[str, Any]) -> None:
    """Checks the arguments of ``evaluate``: what only the loaded model and tasks tell.

    lm_eval itself would leave processes waiting that have no document, and warns of a chat template only
    where the model's name says that it is a chat model.

    Raises:
        ValueError: For more processes than documents, or a cache of responses for pools.
    """
    lm, loaded = given["lm"], given["task_dict"]
    tasks = list(loaded.get("tasks", loaded).values())
    for task in tasks:
        if not isinstance(task, EGLRTask):
            adapt(task)
    ours = [task for task in tasks if isinstance(task, EGLRTask)]
    loaded_lm = vars(lm).get("lm", lm)  # behind the response cache
    decodes_pools = getattr(type(loaded_lm), "DECODES_POOLS", False)
    repeats_differ = decodes_pools or isinstance(loaded_lm, SampledPools)
    if lm.world_size > 1:
        theirs = [task for task in tasks if not (decodes_pools and isinstance(task, EGLRTask))]
        refuse_idle_processes(lm.world_size, theirs, given.get("limit"), given.get("samples"))
    if repeats_differ and lm is not loaded_lm and (ours or any(map(asks_for_pools, tasks))):
        refuse_response_cache(lm.cache_db)
    if lm is not loaded_lm and getattr(loaded_lm, "holds_a_share", False):
        raise ValueError(
            f"use_cache={lm.cache_db!r}: processes that hold a model together may find different "
            "responses in their caches; rollouts=DIR in --model_args keeps what a stopped run has decoded"
        )
    if not getattr(loaded_lm, "speaks", lm.rank == 0):
        return
    if not repeats_differ:
        for task in ours:
            _warn_of_equal_texts(task)
    # Only a tokenizer that is loaded: of some backends it is a property that asks the hub.
    template = getattr(vars(loaded_lm).get("tokenizer"), "chat_template", None)
    if ours and template and not given.get("apply_chat_template"):
        logger.warning(
            "the model has a chat template and it is not applied; add --apply_chat_template, unless the "
            "prompt is meant as plain text"
        )


def _warn_of_equal_texts(task: EGLRTask) -> None:
    options = task.config.generation_kwargs or {}
    if task.config.repeats > 1 and not (options.get("do_sample") or options.get("temperature")):
        logger.warning(
            "%s: repeats=%d of a greedy decoding are %d equal texts; sample with --gen_kwargs "
            "do_sample=True,temperature=0.7",
            task.task_name,
            task.config.repeats,
            task.config.repeats,
        )


def refuse_response_cache(path: str | None) -> None:
    """Refuses ``--use_cache`` for pools: its key is the request, and knows neither grid nor gate nor seed.

    Raises:
        ValueError: If a cache is given.
    """
    if path is not None:
        raise ValueError(
            f"use_cache={path!r}: lm_eval's cache cannot tell pools of other settings apart; keep them with "
            "rollouts=DIR in --model_args, from which the same command continues"
        )


def _with_seed(given: Any, arguments: Mapping[str, Any], seed: int | None) -> Any:
    """``model_args`` with lm_eval's ``--seed``, whose first number is ours too, unless they have one."""
    if not seed or "seed" in arguments:
        return given
    logger.info("rollouts are drawn by seed=%d, as --seed says", seed)
    if isinstance(given, str):
        return f"{given},seed={seed}" if given else f"seed={seed}"
    return {**(given or {}), "seed": seed}


def _check_metadata(arguments: Mapping[str, Any], metadata: Mapping[str, Any], alone: bool) -> None:
    """Refuses misspelt options of ``--metadata``, to which lm_eval adds those of ``--model_args``.

    Args:
        arguments: Of the model.
        metadata: As ``simple_evaluate`` gets it.
        alone: Whether no task of others runs, which could have options of its own.
    """
    for key, value in metadata.items():
        if key in METADATA_OPTIONS or (key in arguments and arguments[key] == value):
            continue
        near = difflib.get_close_matches(key, METADATA_OPTIONS, n=1)
        if near or alone:
            hint = f"; did you mean {near[0]}?" if near else ""
            allowed = ", ".join(METADATA_OPTIONS)
            raise ValueError(f"metadata {key}={value!r}: expected one of {allowed}{hint}")


def _mapping(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        return dict(simple_parse_args_string(given))
    return dict(given or {})


def _is_ours(spec: Any, manager: TaskManager) -> bool:
    """Whether a task, or one of a group or tag, is of our class or uses our filter."""
    if isinstance(spec, Mapping):
        configs = _members(spec, manager)
    elif isinstance(spec, str) and spec in manager.task_index:
        configs = _configs(manager.task_index[spec], manager)
    elif isinstance(spec, str) and Path(spec).is_file():
        configs = _members(load_yaml(spec, resolve_func=False), manager)
    else:
        return False
    return any(has_our_class(config) or has_our_filter(config) for config in configs)


def _configs(entry: Entry, manager: TaskManager) -> Iterator[Mapping[str, Any]]:
    """The configurations of all tasks that an entry of the index stands for."""
    if entry.kind is Kind.TAG:
        for name in entry.tags:
            if name in manager.task_index:
                yield from _configs(manager.task_index[name], manager)
    else:
        yield from _members(entry.cfg or {}, manager)


def _members(config: Mapping[str, Any], manager: TaskManager) -> Iterator[Mapping[str, Any]]:
    """A configuration, and those of the tasks that it names if it is a group's."""
    yield config
    listed = config.get("task")
    for member in listed if isinstance(listed, list) else ():
        name = member.get("task", member.get("group")) if isinstance(member, Mapping) else member
        if isinstance(name, str) and name in manager.task_index:
            yield from _configs(manager.task_index[name], manager)


def _loaded(spec: Any, manager: TaskManager) -> list[Any]:
    """The task, the group or the tasks of a tag, loaded and checked."""
    found = manager.load([spec])
    for task in found["tasks"].values():
        if not isinstance(task, EGLRTask):
            adapt(task)
    name = spec.get("group") if isinstance(spec, Mapping) else spec
    return [found["groups"][name]] if name in found["groups"] else list(found["tasks"].values())
