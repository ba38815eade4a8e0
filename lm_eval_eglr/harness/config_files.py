"""The YAML files that a user gives lm_eval: those of ``--config``, and tasks of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from lm_eval_eglr.paths import tasks_folder

NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
SECTIONS = ("model_args", "gen_kwargs", "metadata")
YAML_PATH = "yaml_path"
"""The key under which a task's configuration says where its file is."""


def refuse_base_60(path: Path) -> None:
    """Refuses values such as ``0:0.7``, which YAML 1.1 reads as a number in base 60.

    Args:
        path: A file for ``--config``; if it cannot be read, lm_eval will say so.

    Raises:
        ValueError: If one stands under ``model_args``, ``gen_kwargs`` or ``metadata`` without quotes.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    if not isinstance(root, yaml.MappingNode):
        return
    for section, content in root.value:
        if section.value not in SECTIONS or not isinstance(content, yaml.MappingNode):
            continue
        for key, node in content.value:
            for scalar in _scalars(node):
                if scalar.tag in NUMBERS and ":" in scalar.value:
                    number = yaml.safe_load(scalar.value)
                    raise ValueError(
                        f"{path}, line {scalar.start_mark.line + 1}: {key.value}: YAML reads {scalar.value} "
                        f'as the number {number:g}; write it in quotes, {key.value}: "{scalar.value}"'
                    )


def model_of(path: str | None) -> str | None:
    """The model that a file for ``--config`` names; ``None`` if it cannot be told."""
    try:
        config = yaml.safe_load(Path(path or "").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return str(config.get("model")) if isinstance(config, dict) else None


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _scalars(item)


def included_file(path: Path) -> Path:
    """Where an included file is: at its path or, where that does not exist, among our tasks.

    So ``include: _prompts/zero_shot_yaml`` or ``include: demo/demo_eglr.yaml`` needs no path to where the
    package is installed.
    """
    if not path.is_file():
        for count in (2, 1):
            ours = tasks_folder().joinpath(*path.parts[-count:])
            if ours.is_file():
                return ours
    return path


def has_our_class(config: Mapping[str, Any]) -> bool:
    """Whether a task's configuration, its functions resolved or not, names our task class."""
    cls = config.get("class")
    classes = cls.__mro__ if isinstance(cls, type) else ()
    names = [str(cls), *(f"{each.__module__}.{each.__qualname__}" for each in classes)]
    return any(name.endswith("lm_eval_eglr.harness.task.EGLRTask") for name in names)


def has_our_filter(config: Mapping[str, Any]) -> bool:
    """Whether a task's configuration has a pipeline with ``eglr_select``."""
    pipelines = config.get("filter_list") or ()
    return any(
        isinstance(step, Mapping) and step.get("function") == "eglr_select"
        for pipeline in pipelines
        if isinstance(pipeline, Mapping)
        for step in pipeline.get("filter") or ()
    )
