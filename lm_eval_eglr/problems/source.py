"""Where the problems of a benchmark are, and how its hub rows are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lm_eval_eglr.problems.answer_columns import ANSWER_COLUMNS

COLUMNS = {"id": str, "problem": str, "answer": str, "solution": str, "subject": str, "level": int}
REQUIRED = ("id", "problem", "answer")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a benchmark's problems are, checked when made.

    Attributes:
        file: Its JSONL file in a data folder, or shipped as ``repairs`` is; one object per line with ``id``,
            ``problem`` and ``answer``, and ``solution``, ``subject`` and ``level`` where it has them.
        rows: Number of problems after repairs; any other number is an error. ``None`` takes any.
        hub: Hub data set; ``None`` if the file is shipped with the task.
        config: Configuration of the hub data set.
        revision: Commit of the hub data set; ``None`` follows its main branch.
        split: Split of the hub data set.
        columns: Our name to the hub's, where they differ; several names are joined as sentences. Of the
            optional columns only those named here are taken: another set's ``solution`` or ``subject``
            may be something else.
        reading: How the answer is read from the hub's answer column, step by step; names of
            :data:`lm_eval_eglr.problems.answer_columns.ANSWER_COLUMNS`.
        repairs: JSONL file of repairs, beside the task's YAML file or, as ``FOLDER/repairs.jsonl``, among our
            tasks; ``None`` if there are none.
    """

    file: str
    rows: int | None = None
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str = "test"
    columns: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    reading: Sequence[str] = ()
    repairs: str | None = None

    def __post_init__(self) -> None:
        if self.rows is not None and (not isinstance(self.rows, int) or self.rows < 1):
            raise ValueError(f"rows={self.rows!r}: expected an integer >= 1")
        commit = isinstance(self.revision, str) and re.fullmatch("[0-9a-f]{40}", self.revision)
        if self.revision is not None and not commit:
            raise ValueError(f"revision={self.revision!r}: expected a commit of 40 hexadecimal digits")
        if self.revision is not None and self.hub is None:
            raise ValueError(f"revision={self.revision!r}: there is no hub data set that it could be of")
        for name in self.columns:
            if name not in COLUMNS:
                raise ValueError(f"columns: {name!r}: expected some of {', '.join(COLUMNS)}")
        for name in self.reading:
            if name not in ANSWER_COLUMNS:
                raise ValueError(f"reading: {name!r}: expected some of {', '.join(ANSWER_COLUMNS)}")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Source:
        """Makes a source of a task's ``dataset_kwargs``.

        Raises:
            ValueError: If a key is unknown or missing, or a value is wrong.
        """
        known = [field.name for field in fields(cls)]
        for key in options:
            if key not in known:
                raise ValueError(
                    f"dataset_kwargs {key}={options[key]!r}: expected some of {', '.join(known)}"
                )
        if "file" not in options:
            raise ValueError("dataset_kwargs: no file")
        return cls(**options)
