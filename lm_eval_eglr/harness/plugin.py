"""The hooks that plug hf-eglr, its filter and its tasks into lm_eval.

Each function gets the lm_eval module that has just been executed, may be called more than once, and
gives way to what a newer lm_eval has already found through our entry points.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from lm_eval_eglr.paths import tasks_folder

# Imported by lm_eval's registries only when the component is asked for.
MODELS = {
    "hf-eglr": "lm_eval_eglr.harness.model:EGLRLM",
    "vllm-eglr": "lm_eval_eglr.backends.vllm:VLLMPools",
    "server-eglr": "lm_eval_eglr.backends.server:ServerPools",
}
FILTERS = {"eglr_select": "lm_eval_eglr.harness.filters:SelectFilter"}


def register_models(module: ModuleType) -> None:
    """Registers the model classes, once lm_eval has registered its own.

    Not earlier: ``get_model`` imports ``lm_eval.models`` only while its registry is empty.
    """
    from lm_eval.api.registry import model_registry

    _register(model_registry, MODELS)


def register_filters(module: ModuleType) -> None:
    """Registers the filters."""
    from lm_eval.api.registry import filter_registry

    _register(filter_registry, FILTERS)


def _register(registry: Any, targets: dict[str, str]) -> None:
    for name, target in targets.items():
        if name not in registry:
            registry.register(name, target=target)


def add_tasks(module: ModuleType) -> None:
    """Lets every TaskManager that scans lm_eval's own tasks scan ours as well.

    Ours come first in ``include_path``, where a later folder wins, so the user's own folders override
    them with lm_eval's usual warning.
    """
    original = module.TaskManager.__init__
    if getattr(original, "_lm_eval_eglr", False):
        return
    signature = inspect.signature(original)
    folder = tasks_folder()

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments.get("include_path")
        paths = list(given) if isinstance(given, (list, tuple)) else [given] if given else []
        # A proposed lm_eval finds task folders through entry points by itself.
        discover = getattr(module, "discover_plugin_task_paths", list)
        scanned = {Path(path).expanduser().resolve() for path in (*paths, *discover())}
        if bound.arguments.get("include_defaults", True) and folder not in scanned:
            bound.arguments["include_path"] = [folder, *paths]
        original(*bound.args, **bound.kwargs)
        self.include_path = given

    __init__._lm_eval_eglr = True  # type: ignore[attr-defined]
    module.TaskManager.__init__ = __init__


def accept_selector_lists(module: ModuleType) -> None:
    """Lets ``--metadata selectors=majority,oracle`` through, whose comma lm_eval takes for the next key."""
    original = module.key_val_to_dict
    if getattr(original, "_lm_eval_eglr", False):
        return

    @functools.wraps(original)
    def key_val_to_dict(args: str) -> dict[str, Any]:
        items = join_selectors(module.split_top_level(args)) if args else []
        result: dict[str, Any] = original(",".join(items))
        return result

    key_val_to_dict._lm_eval_eglr = True  # type: ignore[attr-defined]
    module.key_val_to_dict = key_val_to_dict  # type: ignore[attr-defined]


def join_selectors(items: list[str]) -> list[str]:
    """Joins the items without ``=`` that follow ``selectors=`` to it, in brackets that keep them together."""
    joined: list[str] = []
    for item in items:
        follows = bool(joined) and joined[-1].startswith("selectors=[")
        if "=" not in item.split("(")[0] and follows:
            joined[-1] = f"{joined[-1][:-1]},{item}]"
        elif item.startswith("selectors=") and not item.startswith("selectors=["):
            joined.append(f"selectors=[{item.removeprefix('selectors=')}]")
        else:
            joined.append(item)
    return joined


def check_runs(module: ModuleType) -> None:
    """Lets ``evaluate`` refuse more processes than documents where lm_eval would leave them waiting, and
    warn when our tasks run on a chat model whose template is not applied.

    lm_eval warns only where the model's name says that it is one, and a task never sees the model.
    """
    original = module.evaluate
    if getattr(original, "_lm_eval_eglr", False):
        return
    signature = inspect.signature(original)

    @functools.wraps(original)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        from lm_eval_eglr.harness.processes import refuse_idle_processes
        from lm_eval_eglr.harness.task import EGLRTask

        given = signature.bind(*args, **kwargs).arguments
        lm, loaded = given["lm"], given["task_dict"]
        tasks = loaded.get("tasks", loaded).values()
        loaded_lm = vars(lm).get("lm", lm)  # behind the response cache
        if lm.world_size > 1:
            from lm_eval_eglr.harness.model import EGLRLM

            stands_in = isinstance(loaded_lm, EGLRLM)
            theirs = [task for task in tasks if not (stands_in and isinstance(task, EGLRTask))]
            refuse_idle_processes(lm.world_size, theirs, given.get("limit"), given.get("samples"))
        # Only a tokenizer that is loaded: of some backends it is a property that asks the hub.
        template = getattr(vars(loaded_lm).get("tokenizer"), "chat_template", None)
        ours = any(isinstance(task, EGLRTask) for task in tasks)
        if ours and template and not given.get("apply_chat_template") and lm.rank == 0:
            logging.getLogger("lm_eval_eglr").warning(
                "the model has a chat template and it is not applied; add --apply_chat_template, unless the "
                "prompt is meant as plain text"
            )
        return original(*args, **kwargs)

    evaluate._lm_eval_eglr = True  # type: ignore[attr-defined]
    module.evaluate = evaluate  # type: ignore[attr-defined]


Hook = Callable[[ModuleType], None]
HOOKS: dict[str, Hook] = {
    "lm_eval.models": register_models,
    "lm_eval.filters": register_filters,
    "lm_eval.tasks.manager": add_tasks,
    "lm_eval._cli.utils": accept_selector_lists,
    "lm_eval.evaluator": check_runs,
}


def install() -> None:
    """Plugs into lm_eval without the start-up hook, for interpreters that do not run ``.pth`` files."""
    import importlib

    for name, hook in HOOKS.items():
        hook(importlib.import_module(name))
