"""Trains the demo model by GRPO on generated word problems, with rollouts of TRL, of ours, or of the grid.

    python examples/grpo/train.py --rollouts grid --seed 0 --output /tmp/grpo

``trl`` is TRL's own trainer and generation; ``samples`` draws as many plain samples by ``PoolRollouts``, and
should train alike; ``grid`` draws the same number from two spans, with a gate that recurses more tokens than
the default. The problems are those of the demo model's generator, in its training split; validation is on its
validation split. No problem of ``demo_eglr``, nor any with its numbers, is in either.

A reward is one bit, so a step needs many rollouts: of the squared gradient of 256, a fiftieth is signal (by
how well eight such gradients agree). None was found in the embeddings, which are not trained.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from validation import OPERATIONS, accuracies, chat, rise, some_problems

from lm_eval_eglr.paths import DEMO_FOLDER
from lm_eval_eglr.trl import PoolGRPOTrainer, PoolRollouts, math_reward

GENERATIONS = 8
GRIDS: dict[str, dict[str, Any]] = {
    "samples": {"spans": "0", "temperatures": "1x8"},
    "grid": {"spans": "0:2", "temperatures": "1x4", "entropy_threshold": 0.01},
}
WARMUP = 3
MICROBATCH = 64
"""Most rollouts of one backward pass; their gradients are added up."""
SAMPLES = 4
"""Samples of a validation problem."""
COLUMNS = (
    "rollouts",
    "seed",
    "step",
    "cpu_seconds",
    "reward",
    "validation_sampled",
    "rise",
    "rise_error",
    "validation_greedy",
    "greedy_rise",
    "greedy_rise_error",
    "recursed_tokens",
    "kl_recursed",
    "clipped_tokens",
)


class Validation(TrainerCallback):
    """Every few steps: accuracy on held-out problems, of the policy's samples and greedy."""

    def __init__(self, arguments: argparse.Namespace, tokenizer: Any) -> None:
        self.arguments, self.tokenizer = arguments, tokenizer
        self.problems = some_problems("validation", 0, arguments.operations, arguments.validation)
        self.rows: list[dict[str, Any]] = []
        self.logs: list[dict[str, float]] = []
        self.before: tuple[list[float], list[float]] | None = None

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keeps a step's metrics, and validates when it is time."""
        if "reward" in kwargs["logs"]:
            self.logs.append(kwargs["logs"])
            if state.global_step % self.arguments.every == 0 or state.global_step == state.max_steps:
                self.report(state.global_step, kwargs["model"])

    def report(self, step: int, model: Any) -> None:
        """Adds a row to the curve, and prints it."""
        sampled, greedy = accuracies(
            model, self.tokenizer, self.problems, samples=SAMPLES, tokens=self.arguments.tokens
        )
        self.before = self.before or (sampled, greedy)
        logs, self.logs = self.logs, []

        def logged(name: str) -> float | str:
            values = [each[name] for each in logs if each.get(name) is not None]
            return round(mean(values), 4) if values else ""

        values = (
            self.arguments.rollouts,
            self.arguments.seed,
            step,
            round(time.process_time()),
            logged("reward"),
            round(mean(sampled), 4),
            *rise(self.before[0], sampled),
            round(mean(greedy), 4),
            *rise(self.before[1], greedy),
            logged("sampling/recursed_tokens"),
            logged("sampling/kl_recursed"),
            logged("sampling/clipped_tokens"),
        )
        self.rows.append(dict(zip(COLUMNS, values, strict=True)))
        print(*values, sep="\t", flush=True)


def train(arguments: argparse.Namespace) -> None:
    """Trains, and writes the curve and the model to the output folder."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    model = AutoModelForCausalLM.from_pretrained(DEMO_FOLDER)
    for name, weight in model.named_parameters():
        weight.requires_grad_("embed" not in name)
    groups, parts = arguments.batch // GENERATIONS, math.ceil(arguments.batch / MICROBATCH)
    stream = some_problems("train", 1 + arguments.seed, arguments.operations, groups * arguments.steps)
    config = GRPOConfig(
        str(arguments.output),
        seed=arguments.seed,
        max_steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        warmup_steps=WARMUP,
        per_device_train_batch_size=arguments.batch // parts,
        gradient_accumulation_steps=parts,
        num_generations=GENERATIONS,
        max_completion_length=arguments.tokens,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,  # the model is small, and memory no concern
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    shared: dict[str, Any] = {
        "model": model,
        "reward_funcs": [math_reward],
        "args": config,
        "train_dataset": Dataset.from_list(
            [{"prompt": chat(each), "answer": str(each.answer)} for each in stream]
        ),
        "processing_class": tokenizer,
    }
    if arguments.rollouts == "trl":
        trainer = GRPOTrainer(**shared)
    else:
        rollouts = PoolRollouts(**GRIDS[arguments.rollouts], max_rows=256)
        trainer = PoolGRPOTrainer(**shared, rollout_func=rollouts)
    validation = Validation(arguments, tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(validation)
    print(*COLUMNS, sep="\t")
    validation.report(0, model)
    trainer.train()
    trainer.save_model(str(arguments.output))
    with (arguments.output / "curve.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(validation.rows)


def read_arguments() -> argparse.Namespace:
    """The options; their defaults are those of the runs that the tutorial reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", choices=["trl", *GRIDS], default="grid")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=256, help="rollouts a step")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--operations", type=int, default=2, choices=OPERATIONS, help="of each problem")
    parser.add_argument("--tokens", type=int, default=48, help="most tokens of a rollout")
    parser.add_argument("--validation", type=int, default=400, help="held-out problems")
    parser.add_argument("--every", type=int, default=20, help="steps between validations")
    arguments = parser.parse_args()
    for name, least in (("steps", 1), ("tokens", 1), ("validation", 2), ("every", 1)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name}={getattr(arguments, name)}: expected {least} or more")
    size = GENERATIONS if arguments.batch <= MICROBATCH else MICROBATCH
    if arguments.batch < 1 or arguments.batch % size:
        parser.error(f"--batch={arguments.batch}: expected a multiple of {size}")
    return arguments


if __name__ == "__main__":
    train(read_arguments())
