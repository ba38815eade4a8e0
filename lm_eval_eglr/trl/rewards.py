"""Reward functions for TRL: our grader, and the format of an answer. They need neither torch nor TRL."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eglr_selectors import Rules, extract, grade_many
from eglr_selectors.grading import DEFAULT

REFERENCE_COLUMNS = ("answer", "solution", "reference", "ground_truth", "target")
"""Columns that :func:`math_reward` reads the reference answer from: the first that the dataset has."""

Completion = str | Sequence[Mapping[str, Any]]

_BOX_TOKEN = re.compile(r"\\boxed(?![A-Za-z])\s*(\{?)|\\.|[{}]", re.DOTALL)
_THINK = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)


def math_reward(
    completions: Sequence[Completion],
    *,
    rules: Rules = DEFAULT,
    fallbacks: Sequence[str] = (),
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    r"""Rewards a right final answer, as :func:`eglr_selectors.grade` judges it.

    The reference comes from the first of :data:`REFERENCE_COLUMNS` that the dataset has: an answer, or a
    worked solution that ends in ``\boxed{...}`` or in a ``####`` line. Nothing in a completion is run or
    evaluated, whatever it says, and the time that one comparison takes is limited.

    Args:
        completions: Texts, or lists of chat messages, of which the last one counts.
        rules: When two answers are equal; set it with ``functools.partial``.
        fallbacks: Where to look for an answer that is not boxed, as in :func:`eglr_selectors.extract`.
        log_metric: TRL's; the share of answers that could not be graded goes there.
        **columns: The dataset's columns and what else TRL passes.

    Returns:
        1 for a right answer, 0 for a wrong one or none, and ``None`` (which TRL leaves out) where there is
        no reference or the grader could not decide.

    Raises:
        ValueError: If the dataset has no reference column, or one of another length.
    """
    if not isinstance(rules, Rules):
        raise ValueError(f"rules={rules!r}: expected a Rules; rename the dataset's column of that name")
    name = next((name for name in REFERENCE_COLUMNS if name in columns), None)
    if name is None:
        raise ValueError(f"math_reward: expected a dataset column {' or '.join(REFERENCE_COLUMNS)}")
    references = columns[name]
    if isinstance(references, str) or len(references) != len(completions):
        raise ValueError(f"{name}: expected one reference for each of {len(completions)} completions")
    golds = [None if reference is None else _gold(str(reference)) for reference in references]
    answers = [extract(completion_text(each), fallbacks=fallbacks) for each in completions]
    known = [i for i, gold in enumerate(golds) if gold is not None]
    verdicts = grade_many([(golds[i] or "", answers[i]) for i in known], rules)
    rewards: list[float | None] = [None] * len(completions)
    for i, verdict in zip(known, verdicts, strict=True):
        rewards[i] = None if verdict.correct is None else float(verdict.correct)
    if log_metric is not None and known:
        log_metric("math_reward/ungraded", sum(rewards[i] is None for i in known) / len(known))
    return rewards


def format_reward(completions: Sequence[Completion], **columns: Any) -> list[float]:
    r"""Rewards an answer that is given as asked: 1 or 0.

    A completion is well formed if it has exactly one ``\boxed{...}`` that is closed and not empty, after
    the thinking part if it has one, and if that part is opened once and closed once.

    Args:
        completions: Texts, or lists of chat messages, of which the last one counts.
        **columns: What else TRL passes; not used.
    """
    return [float(_well_formed(completion_text(each))) for each in completions]


def completion_text(completion: Completion) -> str:
    """The text of a completion as TRL passes it: itself, or the content of its last message."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    if isinstance(content, str) or content is None:
        return content or ""
    return "".join(part.get("text") or "" for part in content)


def _gold(reference: str) -> str:
    """The answer that a reference states: its last box or ``####`` line, else all of it."""
    found = extract(reference, fallbacks=("hash",))
    return found.text if found is not None else reference.strip()


def _well_formed(text: str) -> bool:
    tags = list(_THINK.finditer(text))
    closing = [bool(tag[1]) for tag in tags]
    # A chat template may write the opening tag itself, so the completion has only the closing one.
    if closing not in ([], [False, True], [True]):
        return False
    return _closed_boxes(text[tags[-1].end() if tags else 0 :]) == 1


def _closed_boxes(text: str) -> int:
    """Number of boxes, or -1 if one of them is empty or never closed. One pass, whatever the text."""
    count = 0
    opened: list[int | None] = []  # where the content of each open box begins; None for another brace
    for token in _BOX_TOKEN.finditer(text):
        if token[1] is not None:
            if not token[1]:
                return -1
            opened.append(token.end())
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start is not None:
                if not text[start : token.start()].strip():
                    return -1
                count += 1
    return count if all(start is None for start in opened) else -1
