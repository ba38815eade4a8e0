"""What a stored pool belongs to, and what decided its draws."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from eglr_selectors import Rules
from eglr_selectors.grading import DEFAULT

from lm_eval_eglr.store.atomic_files import canonical

Place = tuple[str, int, int]
"""Task, document, repeat: where a pool belongs."""


@dataclass(frozen=True, slots=True)
class PoolKey:
    """Everything about a pool but its rollouts.

    Attributes:
        task: Name of the task.
        doc_id: The harness's number of the document in its task.
        repeat: Which of the document's pools, where the task asks for several.
        document: Key of the draws: digest of the prompt's tokens, and its occurrence.
        settings: What else decides the rollouts of this request: cells, limits, stop strings, sampling.
        fields: The problem's own fields, such as subject and level; JSON values.
        reference: The reference answer.
        rules: When two answers are equal.
        fallbacks: Where to look for an answer when there is no box.
    """

    task: str
    doc_id: int
    repeat: int = 0
    document: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    rules: Rules = DEFAULT
    fallbacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("doc_id", "repeat"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name}={value!r}: expected an integer >= 0")

    @property
    def place(self) -> Place:
        """Where the pool belongs; a store holds at most one pool per place."""
        return self.task, self.doc_id, self.repeat

    @property
    def identity(self) -> str:
        """A digest of what decides the draws; equal in a resumed run."""
        deciding = canonical([*self.place, self.document, self.settings])
        return hashlib.blake2b(deciding.encode(), digest_size=8).hexdigest()

    @property
    def stem(self) -> str:
        """How the pool's file begins: readable, sorted by document, safe on every file system."""
        task = re.sub(r"[^A-Za-z0-9_-]", lambda found: f"%{ord(found[0]):X}", self.task)[:80]
        return f"{task}.{self.doc_id:06d}.{self.repeat}.{self.identity}"

    def to_columns(self) -> dict[str, Any]:
        """The head as columns, the same in every row of its pool."""
        return {
            "task": self.task,
            "doc_id": self.doc_id,
            "repeat": self.repeat,
            "document": self.document,
            "settings": canonical(self.settings),
            "fields": canonical(self.fields),
            "reference": self.reference,
            "rules": canonical(asdict(self.rules)),
            "fallbacks": list(self.fallbacks),
        }

    @classmethod
    def from_columns(cls, row: dict[str, Any]) -> PoolKey:
        """Reads :meth:`to_columns` back."""
        return cls(
            task=row["task"],
            doc_id=row["doc_id"],
            repeat=row["repeat"],
            document=row["document"],
            settings=json.loads(row["settings"]),
            fields=json.loads(row["fields"]),
            reference=row["reference"],
            rules=Rules(**json.loads(row["rules"])),
            fallbacks=tuple(row["fallbacks"]),
        )
