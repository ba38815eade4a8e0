"""The completion form of a prompt, for base models, and the hash that names a task's prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

COMPLETION = "Problem: {problem}\nSolution:"
STOP = "\n\nProblem:"
"""Where the model goes on with a problem of its own; the box in it would be taken for the answer."""


def completion_prompt(
    examples: Sequence[Mapping[str, str]], problem: str, system_instruction: str | None = None
) -> str:
    """Worked examples, each with its ``problem`` and ``solution``, then the problem without one."""
    parts = [f"{COMPLETION.format(problem=each['problem'])} {each['solution']}" for each in examples]
    parts.append(COMPLETION.format(problem=problem))
    return "\n\n".join([*([system_instruction.strip()] if system_instruction else []), *parts])


def prompt_hash(template: str, examples: Sequence[Mapping[str, Any]]) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over everything that a prompt is made of."""
    parts = [template, COMPLETION, STOP, list(examples)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
