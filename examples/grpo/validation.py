"""Held-out word problems, and how a model does on them: accuracy of its samples, and greedy."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo_model"))

from word_problems import OPERATIONS, WordProblem, problems
from word_tokenizer import PROMPT

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.trl import math_reward

__all__ = ["OPERATIONS", "accuracies", "chat", "rise", "some_problems"]


def chat(problem: WordProblem) -> list[dict[str, str]]:
    """The messages that ``demo_eglr`` shows the model."""
    return [{"role": "user", "content": PROMPT.format(problem=problem.problem)}]


def some_problems(split: Any, seed: int, operations: int, count: int) -> list[WordProblem]:
    """The first problems of a stream that have so many operations."""
    stream = (each for each in problems(split, seed) if each.operations == operations)
    return list(itertools.islice(stream, count))


def accuracies(
    model: Any, tokenizer: Any, chosen: list[WordProblem], *, samples: int, tokens: int
) -> tuple[list[float], list[float]]:
    """Of each problem: the share of right samples at temperature 1, and whether greedy decoding is right."""
    decoder = PoolDecoder(model, tokenizer, spans="0", temperatures=f"0:1x{samples}", max_rows=256)
    pools = decoder.generate([chat(each) for each in chosen], max_new_tokens=tokens, progress=False, seed=1)
    answers = [str(each.answer) for each in chosen for _ in range(1 + samples)]
    rewards = math_reward([rollout.text for pool in pools for rollout in pool], answer=answers)
    right = [reward or 0.0 for reward in rewards]
    groups = [right[start : start + 1 + samples] for start in range(0, len(right), 1 + samples)]
    return [mean(group[1:]) for group in groups], [group[0] for group in groups]


def rise(before: list[float], after: list[float]) -> tuple[float, float]:
    """By how much the mean over problems rose, and the standard error of that: the problems are the same."""
    differences = [new - old for old, new in zip(before, after, strict=True)]
    return round(mean(differences), 4), round(stdev(differences) / len(differences) ** 0.5, 4)
