"""Registries of factories: the mechanism that selectors and verifiers share."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from eglr_selectors.specification import Specification

REQUIRED = inspect.Parameter.empty
"""Stands for the default of an option that has none."""

FILES_VARIABLE = "EGLR_PLUGINS"
"""Environment variable with Python files that register selectors and verifiers, separated as in PATH."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered factory.

    Attributes:
        name: What users call it.
        factory: Makes the thing from its keyword-only options.
        uses_reference: Whether what it makes looks at the reference answer.
        options: The options with their defaults, :data:`REQUIRED` where there is none.
        description: First line of the factory's docstring.
        origin: The module that registered it.
    """

    name: str
    factory: Callable[..., Any]
    uses_reference: bool
    options: Mapping[str, Any]
    description: str
    origin: str


@dataclass(slots=True)
class Registry:
    """Factories by name: ours, those registered in this process, and those of installed packages.

    Attributes:
        kind: What is made, for messages.
        group: Entry-point group in which other packages announce theirs.
        builtin: Package whose import registers ours.
    """

    kind: str
    group: str
    builtin: str
    _entries: dict[str, Entry] = field(default_factory=dict)
    _builtin_loaded: bool = False
    _plugins_loaded: bool = False

    def register(self, name: str, factory: Callable[..., Any], uses_reference: bool = False) -> None:
        """Adds a factory.

        Raises:
            ValueError: If the name is no identifier, is taken, or the factory takes other than
                keyword-only parameters.
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{self.kind} {name!r}: expected letters, digits and underscores")
        known = self._entries.get(name)
        # The same function again is a reloaded module or a notebook cell run twice.
        if known is not None and (known.origin, known.factory.__qualname__) != (
            factory.__module__,
            factory.__qualname__,
        ):
            raise ValueError(f"{self.kind} {name!r}: {known.origin} has registered this name")
        self._entries[name] = Entry(
            name,
            factory,
            uses_reference,
            self._options(name, factory),
            (inspect.getdoc(factory) or "").split("\n", 1)[0],
            factory.__module__,
        )

    def entries(self) -> dict[str, Entry]:
        """Returns all factories by name, those of installed packages included."""
        self._load_builtin()
        self._load_plugins()
        return dict(self._entries)

    def entry(self, name: str) -> Entry:
        """Returns one factory; other packages are looked at only if it is not known without them.

        Raises:
            ValueError: If there is none of this name.
        """
        self._load_builtin()
        if name not in self._entries:
            self._load_plugins()
        if name not in self._entries:
            close = difflib.get_close_matches(name, self._entries, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(
                f"{self.kind} {name!r}: expected one of {', '.join(sorted(self._entries))}{hint}"
            )
        return self._entries[name]

    def options_of(
        self, entry: Entry, specification: Specification, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Joins the options written as text with those given as keywords.

        Raises:
            ValueError: If an option is unknown, given twice or missing.
        """
        names = list(entry.options)
        allowed = f"{entry.name} takes {', '.join(names) or 'no options'}"
        if len(specification.positional) > len(names):
            raise ValueError(f"{specification}: too many arguments; {allowed}")
        merged = dict(zip(names, specification.positional, strict=False))
        for given in (specification.options, options):
            for key, value in given.items():
                if key not in entry.options:
                    raise ValueError(f"{key}={value!r}: {allowed}")
                if key in merged:
                    raise ValueError(f"{key}={value!r}: {entry.name} was given {key} twice")
                merged[key] = value
        missing = [key for key, default in entry.options.items() if default is REQUIRED and key not in merged]
        if missing:
            raise ValueError(f"{entry.name}: {', '.join(missing)} must be given")
        return merged

    def _options(self, name: str, factory: Callable[..., Any]) -> dict[str, Any]:
        parameters = inspect.signature(factory).parameters.values()
        for parameter in parameters:
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                raise ValueError(
                    f"{self.kind} {name!r}: parameter {parameter.name} of its factory must be keyword-only"
                )
        return {parameter.name: parameter.default for parameter in parameters}

    def _load_builtin(self) -> None:
        if not self._builtin_loaded:
            self._builtin_loaded = True
            importlib.import_module(self.builtin)

    def _load_plugins(self) -> None:
        if not self._plugins_loaded:
            self._plugins_loaded = True
            load_files()
            for point in entry_points(group=self.group):
                self._load(point)

    def _load(self, point: EntryPoint) -> None:
        try:
            loaded = point.load()
            # A point may name a module that registers, or a factory that nobody has registered.
            if callable(loaded) and point.name not in self._entries:
                self.register(point.name, loaded)
        except Exception as error:  # another package's fault must not stop this one
            what = f"{self.kind} plug-in {point.name} ({point.value})"
            warnings.warn(
                f"{what} is left out: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2
            )


def load_files() -> None:
    """Runs the files that the environment variable EGLR_PLUGINS names, each once in a process.

    Raises:
        ValueError: If one is not there or raises. The user has named it, so nothing goes on without it.
    """
    for name in filter(None, os.environ.get(FILES_VARIABLE, "").split(os.pathsep)):
        path = Path(name).expanduser().resolve()
        module = f"eglr_plugin_{path.stem}"
        if getattr(sys.modules.get(module), "__file__", None) == str(path):
            continue
        spec = importlib.util.spec_from_file_location(module, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise ValueError(f"{FILES_VARIABLE}={name}: expected a Python file")
        sys.modules[module] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[module])
        except Exception as error:
            del sys.modules[module]
            raise ValueError(f"{FILES_VARIABLE}={name}: {type(error).__name__}: {error}") from error
