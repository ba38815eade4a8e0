"""How published process reward models want a solution's steps laid out, and where they answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Layout = tuple[list[int], list[int]]
"""Token ids of problem and solution, and the position of each step's judgement."""

QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
QWEN_STEP = "<extra_0>"
SHEPHERD_STEP = "ки"


@dataclass(frozen=True, slots=True)
class Convention:
    """One family's way.

    Attributes:
        separator: What stands between two steps of a solution.
        lay_out: From tokenizer, problem and steps to token ids and positions.
        judge: From tokenizer and the model's outputs at these positions, ``[steps, outputs]``, to
            the probability that each step is good, ``[steps]``.
        head: Which head the model has: ``tokens``, ``value`` or ``language``.
    """

    separator: str
    lay_out: Callable[[Any, str, list[str]], Layout]
    judge: Callable[[Any, torch.Tensor], torch.Tensor]
    head: str


def _qwen_layout(tokenizer: Any, problem: str, steps: list[str]) -> Layout:
    chat = [
        {"role": "system", "content": QWEN_SYSTEM},
        {"role": "user", "content": problem},
        {"role": "assistant", "content": QWEN_STEP.join(steps) + QWEN_STEP},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids, _positions(ids, tokenizer.convert_tokens_to_ids(QWEN_STEP))


def _qwen_judge(tokenizer: Any, outputs: torch.Tensor) -> torch.Tensor:
    return _checked(outputs, 2, "qwen").softmax(dim=-1)[:, 1]


def _skywork_layout(tokenizer: Any, problem: str, steps: list[str]) -> Layout:
    ids = _encode(tokenizer, f"{tokenizer.bos_token or ''}{problem}\n")
    end = _encode(tokenizer, "\n")[-1]
    positions = []
    for step in steps:
        ids = [*ids, *(_encode(tokenizer, step) if step else []), end]
        positions.append(len(ids) - 1)
    return ids, positions


def _skywork_judge(tokenizer: Any, outputs: torch.Tensor) -> torch.Tensor:
    return _checked(outputs, 1, "skywork").sigmoid()[:, 0]


def _shepherd_layout(tokenizer: Any, problem: str, steps: list[str]) -> Layout:
    text = f"{problem} " + "\n".join(f"{step} {SHEPHERD_STEP}" for step in steps)
    ids = tokenizer(text)["input_ids"]
    return ids, _positions(ids, _encode(tokenizer, SHEPHERD_STEP)[-1])


def _shepherd_judge(tokenizer: Any, outputs: torch.Tensor) -> torch.Tensor:
    candidates = [_encode(tokenizer, sign)[-1] for sign in "+-"]
    return outputs[:, candidates].softmax(dim=-1)[:, 0]


def _encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _positions(ids: list[int], wanted: int) -> list[int]:
    return [position for position, token in enumerate(ids) if token == wanted]


def _checked(outputs: torch.Tensor, size: int, name: str) -> torch.Tensor:
    if outputs.shape[-1] != size:
        raise ValueError(
            f"convention={name!r}: the model has {outputs.shape[-1]} outputs per token, expected {size}"
        )
    return outputs


CONVENTIONS = {
    "qwen": Convention("\n\n", _qwen_layout, _qwen_judge, "tokens"),
    "skywork": Convention("\n", _skywork_layout, _skywork_judge, "value"),
    "math_shepherd": Convention("\n", _shepherd_layout, _shepherd_judge, "language"),
}
"""``qwen``: Qwen2.5-Math-PRM (arXiv 2501.07301), ``<extra_0>`` after every step, two classes there;
``skywork``: Skywork-o1-Open-PRM, a value head at every line's end; ``math_shepherd``: Math-Shepherd
(arXiv 2312.08935), the chance of + against - after ``ки``."""
