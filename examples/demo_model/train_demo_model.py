"""Trains the demo model from scratch on generated word problems, until it is a student and no calculator.

    python examples/demo_model/train_demo_model.py --output /tmp/demo_model

Every option has the value that made the checkpoint in ``lm_eval_eglr/demo_model``.
"""

from __future__ import annotations

import argparse
import copy
import csv
import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from muon import Muon
from torch.nn.functional import cross_entropy
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from word_problems import WordProblem, held_out, problems
from word_tokenizer import ASSISTANT, CONTEXT, END, PROMPT, USER, build_tokenizer

POOL = 32
"""Batches whose examples are sorted by length together, so that little is padding."""
PLAIN = 1 / 16
"""Share of examples without the marks of the chat template, for prompts of plain text."""
IGNORED = -100
LONGEST = 128
"""Most tokens of a rollout; the longest worked solution has 85."""
COLUMNS = ("step", "examples", "tokens", "cpu_seconds", "training_loss")


@dataclass(frozen=True, slots=True)
class Student:
    """A model to train, and how it is run.

    Attributes:
        model: With random weights.
        logits: Runs it in training: token ids ``[size, length]`` to logits ``[size, length, vocabulary]``.
        columns: Columns of ``loss.csv`` with accuracies, each with what ``generate`` is given for it.
        judged: The column that says when to stop.
    """

    model: PreTrainedModel
    logits: Callable[[torch.Tensor], torch.Tensor]
    columns: dict[str, dict[str, Any]]
    judged: str = "validation_accuracy"


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Returns a Llama of 8 layers and 1.5 million parameters with random weights."""
    end = tokenizer.eos_token_id
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
    return model


def chat(problem: WordProblem) -> str:
    """Returns the prompt as ``lm_eval --tasks demo_eglr --apply_chat_template`` writes it."""
    return USER + PROMPT.format(problem=problem.problem) + ASSISTANT


def batches(
    tokenizer: PreTrainedTokenizerFast, size: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields token ids and labels, both ``[size, length]``; only solutions have labels."""
    stream, rng, end = problems("train", seed), random.Random(seed), tokenizer.eos_token_id
    while True:
        examples = list(itertools.islice(stream, POOL * size))
        texts = [
            PROMPT.format(problem=each.problem) if rng.random() < PLAIN else chat(each) for each in examples
        ]
        prompts = tokenizer(texts).input_ids
        solutions = tokenizer([each.solution + END for each in examples]).input_ids
        pairs = sorted(zip(prompts, solutions, strict=True), key=lambda pair: len(pair[0]) + len(pair[1]))
        groups = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        rng.shuffle(groups)
        for group in groups:
            length = len(group[-1][0]) + len(group[-1][1])
            # Padding on the right needs no mask: no token attends to what comes after it.
            ids = [[*p, *s, *[end] * (length - len(p) - len(s))] for p, s in group]
            labels = [[*[IGNORED] * len(p), *s, *[IGNORED] * (length - len(p) - len(s))] for p, s in group]
            yield torch.tensor(ids), torch.tensor(labels)


def optimizers(model: PreTrainedModel, rate: float) -> list[torch.optim.Optimizer]:
    """Returns Muon for the matrices of the layers and AdamW for embeddings and norms."""
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding]
    others = [p for p in model.parameters() if p.ndim != 2 or p is embedding]
    return [
        Muon(matrices, lr=rate),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


@torch.no_grad()
def accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, chosen: list[WordProblem], **generation: Any
) -> float:
    """Returns the share of problems whose greedy solution ends in the right box.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        chosen: The problems.
        generation: More arguments of ``generate``.
    """
    model.eval()
    inputs = tokenizer(
        [chat(each) for each in chosen], padding=True, padding_side="left", return_tensors="pt"
    )
    inputs.pop("token_type_ids", None)
    found = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False, **generation)
    texts = tokenizer.batch_decode(found[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    right = [text.endswith(f"\\boxed{{{each.answer}}}.") for text, each in zip(texts, chosen, strict=True)]
    return sum(right) / len(right)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a checkpoint as transformers and lm_eval load it: weights in bf16, for computing in fp32."""
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    # Half the size costs nothing; half the precision is many times slower where a processor has no bf16.
    config = type(model.config).from_pretrained(folder)
    config.dtype = torch.float32
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train(options: argparse.Namespace, make: Callable[[PreTrainedTokenizerFast], Student]) -> None:
    """Trains until the averaged weights solve the wanted share of the validation problems.

    Args:
        options: What :func:`parser` reads.
        make: Makes the student from its tokenizer.
    """
    torch.manual_seed(options.seed)
    tokenizer = build_tokenizer()
    student = make(tokenizer)
    model = student.model
    averaged = copy.deepcopy(model)
    print(f"{model.num_parameters()} parameters, {len(tokenizer)} tokens", flush=True)
    steppers = optimizers(model, options.rate)
    validation = held_out(options.validation, "validation", options.seed)
    stream = batches(tokenizer, options.batch, options.seed)
    options.output.mkdir(parents=True, exist_ok=True)
    with open(options.output / "loss.csv", "w", newline="", encoding="utf-8") as file:
        log = csv.writer(file)
        log.writerow((*COLUMNS, *student.columns))
        losses, tokens = [], 0
        for step in range(1, options.steps + 1):
            for stepper in steppers:
                for group in stepper.param_groups:
                    group["lr"] = options.rate * min(1, step / options.warm_up)
            ids, labels = next(stream)
            model.train()
            logits = student.logits(ids)
            loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for stepper in steppers:
                stepper.step()
                stepper.zero_grad()
            keep = min(options.average, step / (step + 10))
            with torch.no_grad():
                for mean, new in zip(averaged.parameters(), model.parameters(), strict=True):
                    mean.lerp_(new, 1 - keep)
            losses.append(loss.item())
            tokens += ids.numel()
            if step % options.every == 0:
                shares = {
                    name: accuracy(averaged, tokenizer, validation, **generation)
                    for name, generation in student.columns.items()
                }
                row = (step, step * options.batch, tokens, round(time.process_time()))
                mean_loss = f"{sum(losses) / len(losses):.4f}"
                log.writerow((*row, mean_loss, *(f"{share:.4f}" for share in shares.values())))
                file.flush()
                print(*row, f"loss {mean_loss}", *(f"{share:.1%}" for share in shares.values()), flush=True)
                losses = []
                save(averaged, tokenizer, options.output / f"step-{step}")
                if shares[student.judged] >= options.until:
                    break


def llama(tokenizer: PreTrainedTokenizerFast) -> Student:
    """Returns the demo model, not yet trained."""
    model = new_model(tokenizer)
    return Student(
        model, lambda ids: model(input_ids=ids, use_cache=False).logits, {"validation_accuracy": {}}
    )


def parser(description: str) -> argparse.ArgumentParser:
    """Returns the command line of a training script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, required=True, help="folder of checkpoints and of loss.csv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=24, help="examples per step")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate after the warm-up")
    parser.add_argument("--warm-up", type=int, default=50, help="steps")
    parser.add_argument("--average", type=float, default=0.98, help="decay of the averaged weights per step")
    parser.add_argument("--every", type=int, default=100, help="steps between looks at the validation set")
    parser.add_argument("--validation", type=int, default=400, help="validation problems")
    parser.add_argument("--until", type=float, default=0.55, help="validation accuracy at which it stops")
    parser.add_argument("--steps", type=int, default=3000, help="most steps")
    return parser


if __name__ == "__main__":
    train(parser(__doc__.splitlines()[0]).parse_args(), llama)
