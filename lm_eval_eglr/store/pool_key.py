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
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
                raise ValueError(f"{name}={value!r}: expected an integer >= 0")
        for name in ("task", "document"):
            _check_text(name, getattr(self, name))
        if self.reference is not None:
            _check_text("reference", self.reference)
        for name in ("settings", "fields"):
            value = getattr(self, name)
            if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
                raise ValueError(f"{name}={value!r}: expected a mapping with names")
        if not isinstance(self.rules, Rules):
            raise ValueError(f"rules={self.rules!r}: expected rules of grading")
        if not isinstance(self.fallbacks, tuple):
            raise ValueError(f"fallbacks={self.fallbacks!r}: expected a tuple of names")
        for value in self.fallbacks:
            _check_text("fallbacks", value)

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
        """Reads :meth:`to_columns` back.

        Raises:
            ValueError: If a value is of another type.
            TypeError: Likewise.
            KeyError: If one is missing.
        """
        rules = json.loads(row["rules"])
        if not isinstance(rules, dict):
            raise ValueError(f"rules={rules!r}: expected a mapping")
        return cls(
            task=row["task"],
            doc_id=row["doc_id"],
            repeat=row["repeat"],
            document=row["document"],
            settings=json.loads(row["settings"]),
            fields=json.loads(row["fields"]),
            reference=row["reference"],
            rules=Rules(**rules),
            fallbacks=tuple(row["fallbacks"]),
        )


def _check_text(name: str, value: object) -> None:
    """Text that a file can hold: half of a surrogate pair, which JSON can spell, is no character."""
    if not isinstance(value, str):
        raise ValueError(f"{name}={value!r}: expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        lone = value[error.start].encode("unicode_escape").decode()
        raise ValueError(
            f"{name}: has a lone surrogate ({lone}), expected text that UTF-8 can hold"
        ) from None
