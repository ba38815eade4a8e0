"""Forms of a prompt that are not in a YAML file alone, and the hash that names a task's prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

COMPLETION = "Problem: {problem}\nSolution:"
STOP = "\n\nProblem:"
"""Where the model goes on with a problem of its own; the box in it would be taken for the answer."""

ZERO_SHOT = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
"""The same text as ``doc_to_text`` of ``zero_shot_yaml``, for prompts that are made without lm_eval."""


def zero_shot_prompt(problem: str) -> str:
    """The problem as most tasks ask it without worked examples, before any chat template."""
    return ZERO_SHOT.format(problem=problem)


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
