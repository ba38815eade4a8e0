"""Short GRPO runs of tiny models, and what their reward functions saw."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tiny_models import byte_tokenizer, tiny_model
from transformers import PreTrainedModel

# This folder is called trl too, so the package alone would be found.
trl = pytest.importorskip("trl.trainer", reason="needs TRL, which needs Python 3.11")
GRPOConfig, GRPOTrainer = trl.GRPOConfig, trl.GRPOTrainer

from lm_eval_eglr.trl import PoolGRPOTrainer, PoolRollouts  # noqa: E402

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

PROMPTS = ["one ", "two ", "three ", "four "]
CELLS = 4  # of the grid below
GRID = {"spans": "0:2", "temperatures": "0:0.7", "entropy_threshold": 0.1}


def config(folder: Path, **changes: Any) -> Any:
    """Settings of a run of two steps, two groups each."""
    settings: dict[str, Any] = {
        "max_steps": 2,
        "num_generations": CELLS,
        "per_device_train_batch_size": 2 * CELLS,
        "max_completion_length": 6,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "shuffle_dataset": False,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    return GRPOConfig(str(folder), **{**settings, **changes})


class Recorder:
    """A reward function that remembers what it was given; longer words are better."""

    __name__ = "recorder"

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **fields: Any) -> list[float]:
        self.calls.append(fields)
        return [float(sum(ids) % 7) for ids in fields["completion_ids"]]

    @property
    def completions(self) -> list[list[list[int]]]:
        """The token ids of all completions, by call."""
        return [call["completion_ids"] for call in self.calls]


def trainer(
    folder: Path,
    rollouts: Any = None,
    *,
    model: PreTrainedModel | None = None,
    prompts: list[Any] = PROMPTS,
    reward: Any = None,
    settings: dict[str, Any] | None = None,
    kind: type = PoolGRPOTrainer,
    **options: Any,
) -> Any:
    """A trainer of a tiny model over ``prompts``."""
    return kind(
        model=tiny_model() if model is None else model,
        reward_funcs=reward or Recorder(),
        args=config(folder, **(settings or {})),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=options.pop("processing_class", None) or byte_tokenizer(),
        rollout_func=rollouts or PoolRollouts(**GRID),
        **options,
    )
