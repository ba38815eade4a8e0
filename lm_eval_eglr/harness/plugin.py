"""The hooks that plug hf-eglr, its filter and its tasks into lm_eval.

Each function gets the lm_eval module that has just been executed, may be called more than once, and
gives way to what a newer lm_eval has already found through our entry points.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import logging
import os
import sys
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
    """Lets ``simple_evaluate`` and ``evaluate`` check our runs first; see the module ``run_checks``.

    And keeps git from printing where there is no repository, which lm_eval asks for its hash.
    """
    _wrap_checked(module, "simple_evaluate", "check_run")
    _wrap_checked(module, "evaluate", "check_evaluation")
    original = getattr(module, "get_git_commit_hash", None)
    if original is None or getattr(original, "_lm_eval_eglr", False):
        return

    @functools.wraps(original)
    def get_git_commit_hash() -> str | None:
        inside = any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents))
        found: str | None = original() if inside or "GIT_DIR" in os.environ else None
        return found

    _replace(module, "get_git_commit_hash", get_git_commit_hash)


def _wrap_checked(module: ModuleType, name: str, check: str) -> None:
    """Lets a function of lm_eval's evaluator run one of our checks on its arguments first."""
    original = getattr(module, name, None)
    if original is None or getattr(original, "_lm_eval_eglr", False):
        return
    signature = inspect.signature(original)

    @functools.wraps(original)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            from lm_eval_eglr.harness import run_checks
        except ImportError as error:  # a newer lm_eval has moved what we look at
            logging.getLogger("lm_eval_eglr").warning("runs are not checked before they start: %s", error)
            return original(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        getattr(run_checks, check)(given)
        with run_checks.memory_of(given.get("lm")):
            return original(**given)

    _replace(module, name, checked)


def order_rows(module: ModuleType) -> None:
    """Lets lm_eval's table show our rows in the order of :mod:`lm_eval_eglr.harness.row_order`."""
    original = module.make_table
    if getattr(original, "_lm_eval_eglr", False):
        return

    @functools.wraps(original)
    def make_table(result_dict: Any, column: str = "results", *args: Any, **kwargs: Any) -> Any:
        from lm_eval_eglr.harness.config_files import has_our_filter
        from lm_eval_eglr.harness.row_order import ordered_rows

        configs = result_dict.get("configs", {})
        shown = {}
        for name, metrics in result_dict[column].items():
            config = configs.get(name, {})
            selects = has_our_filter(config)
            asked = selects or "selectors" in (config.get("metadata") or {})
            shown[name] = ordered_rows(metrics, selects, by_default=not asked)
        return original({**result_dict, column: shown}, column, *args, **kwargs)

    _replace(module, "make_table", make_table)


def find_task_files(module: ModuleType) -> None:
    """Lets a task file include ours by their names, and a task of our class know where its file is."""
    original = module.load_yaml
    if getattr(original, "_lm_eval_eglr", False):
        return

    @functools.wraps(original)
    def load_yaml(path: str | Path, **kwargs: Any) -> Any:
        from lm_eval_eglr.harness.config_files import YAML_PATH, has_our_class, included_file

        path = Path(path).expanduser()
        if kwargs.get("_seen") is not None:
            return original(included_file(path), **kwargs)
        config = original(path, **kwargs)
        if has_our_class(config):
            config[YAML_PATH] = str(path.resolve())
        return config

    _replace(module, "load_yaml", load_yaml)


def check_config_files(module: ModuleType) -> None:
    """Lets ``--config`` refuse numbers in base 60, which YAML makes of lists such as ``0:0.7``."""
    original = module.EvaluatorConfig.load_yaml_config
    if getattr(original, "_lm_eval_eglr", False):
        return

    @functools.wraps(original)
    def load_yaml_config(config_path: str | Path) -> Any:
        from lm_eval_eglr.harness.config_files import refuse_base_60

        refuse_base_60(Path(config_path))
        return original(config_path)

    load_yaml_config._lm_eval_eglr = True  # type: ignore[attr-defined]
    module.EvaluatorConfig.load_yaml_config = staticmethod(load_yaml_config)


def tidy_commands(module: ModuleType) -> None:
    """Lets lm_eval's commands print our log lines as their own, and a user's error as one line."""
    original = module.HarnessCLI.execute
    if getattr(original, "_lm_eval_eglr", False):
        return

    @functools.wraps(original)
    def execute(self: Any, args: Any) -> Any:
        from lm_eval_eglr.harness.console import log_lines, one_line_errors

        with log_lines(), one_line_errors(args, tuple(MODELS)):
            return original(self, args)

    _replace(module.HarnessCLI, "execute", execute)
    parse = module.HarnessCLI.parse_args

    @functools.wraps(parse)
    def parse_args(self: Any) -> Any:
        from lm_eval_eglr.harness.console import one_line_errors

        typed = argparse.Namespace(model=next((name for name in MODELS if name in sys.argv), None))
        with one_line_errors(typed, tuple(MODELS)):
            return parse(self)

    _replace(module.HarnessCLI, "parse_args", parse_args)


def _replace(owner: Any, name: str, function: Any) -> None:
    function._lm_eval_eglr = True
    setattr(owner, name, function)


Hook = Callable[[ModuleType], None]
HOOKS: dict[str, Hook] = {
    "lm_eval.utils": order_rows,
    "lm_eval.models": register_models,
    "lm_eval.filters": register_filters,
    "lm_eval.tasks._yaml_loader": find_task_files,
    "lm_eval.tasks.manager": add_tasks,
    "lm_eval.config.evaluate_config": check_config_files,
    "lm_eval._cli.utils": accept_selector_lists,
    "lm_eval._cli.harness": tidy_commands,
    "lm_eval.evaluator": check_runs,
}


def install() -> None:
    """Plugs into lm_eval without the start-up hook, for interpreters that do not run ``.pth`` files."""
    import importlib

    for name, hook in HOOKS.items():
        hook(importlib.import_module(name))
