"""Stores for the tests: written by hand from small pools, or by hf-eglr with a tiny random model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from eglr_selectors import Cell, PoolCost, Rollout, RolloutPool, Telemetry

from lm_eval_eglr.importing.exported_rollouts import read as read_exported
from lm_eval_eglr.importing.imported import ImportOptions
from lm_eval_eglr.importing.writing import write_store
from lm_eval_eglr.store import Manifest, PoolKey, StoreWriter

SPANS, TEMPERATURES = (0, 2), (0.0, 0.7, 0.7)
MANIFEST = Manifest({"model": "tiny", "seed": 0, "dtype": "float32"}, {"python": "3"})
# Answers of the grid's six rollouts, problem by problem; the reference is always 1.
ANSWERS = (
    ["1", "1", "2", "1", "3", None],
    ["2", "1", "2", "2", "2", "2"],
    ["2", "3", "2", "1", "2", "4"],
    ["2", "3", "2", "5", "2", "1"],
    [None, "2", "2", "3", "3", None],
)


def small_pool(answers: list[str | None], number: int = 0, wrap: str = "so it is {}") -> RolloutPool:
    """A pool of spans 0, 2 and temperatures 0, 0.7, 0.7 with telemetry that differs from cell to cell."""
    rollouts = []
    for i, answer in enumerate(answers):
        span, column = SPANS[i // 3], i % 3
        text = wrap.format("unknown" if answer is None else rf"\boxed{{{answer}}}")
        telemetry = Telemetry(
            mean_entropy=0.1 + 0.01 * i + number / 7,
            mean_logprob=-0.2 - 0.03 * ((i + number) % 5),
            mean_confidence=3.0 + i,
            mean_self_certainty=2.0 - 0.1 * i,
            gated_tokens=3 * (span > 0),
            recursions=5 * (span > 0),
            converged_tokens=2 * (span > 0),
        )
        rollouts.append(
            Rollout(
                text,
                Cell(span, TEMPERATURES[column], max(0, column - 1)),
                "length" if answer is None else "stop",
                tuple(range(i + 4)),
                telemetry,
            )
        )
    return RolloutPool(tuple(rollouts), f"Problem {number}?", PoolCost(5, 39, 30, 60, 10, 40, 1e6, 2e6))


def small_head(number: int, task: str = "toy", **changes: Any) -> PoolKey:
    """The head of problem ``number``."""
    return PoolKey(
        **{
            "task": task,
            "doc_id": number,
            "document": f"{number}:0",
            "settings": {"max_gen_toks": 16},
            "fields": {"problem": f"Problem {number}?", "level": 1 + number % 2, "subject": "algebra"},
            "reference": "1",
            **changes,
        }
    )


def write_small(folder: Path, answers: tuple[list[str | None], ...] = ANSWERS, **head: Any) -> Path:
    """Writes a store of small pools."""
    writer = StoreWriter(folder)
    heads = [small_head(number, **head) for number in range(len(answers))]
    with writer.writing(MANIFEST):
        writer.plan(heads)
        for number, each in enumerate(heads):
            writer.append(each, small_pool(answers[number], number))
    return folder


def import_lines(path: Path, folder: Path) -> int:
    """Makes a store of exported lines, as ``eglr import`` does; returns the number of its pools."""
    return write_store(folder, read_exported(path, ImportOptions()), "eglr export")


def contents(store: Path) -> dict[str, bytes]:
    """The files of its pools, by name."""
    return {path.name: path.read_bytes() for path in (store / "pools").glob("[!.]*")}


def make_tiny(folder: Path, problems: int = 4, max_gen_toks: int = 24) -> None:
    """Saves a random Llama, a tokenizer of single bytes and a task ``toy_eglr``."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: number for number, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    fast.save_pretrained(folder / "model")
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=256,
        pad_token_id=256,
        initializer_range=0.4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "model")
    lines = [
        json.dumps({"id": str(i), "problem": f"What is {i} + {i}?", "answer": str(2 * i), "level": i % 2})
        for i in range(problems)
    ]
    (folder / "tasks").mkdir()
    (folder / "tasks" / "toy.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "tasks" / "toy_eglr.yaml").write_text(
        "task: toy_eglr\n"
        "class: !function lm_eval_eglr.harness.task.EGLRTask\n"
        f"dataset_kwargs: {{file: toy.jsonl, rows: {problems}}}\n"
        "test_split: test\noutput_type: generate_until\n"
        'doc_to_text: "{{problem}} Answer:"\ndoc_to_target: answer\n'
        f"generation_kwargs: {{until: [], do_sample: false, max_gen_toks: {max_gen_toks}}}\n"
        "metadata: {version: 1.0, rules: number, fallbacks: [last_number]}\n"
    )


def run_tiny(
    folder: Path, rollouts: Path, limit: int | None = None, threads: int = 1, **model_args: Any
) -> dict[str, Any]:
    """Runs the literal hf-eglr class through lm_eval; returns lm_eval's results.

    ``model_args`` replace the defaults below; ``None`` takes one away.
    """
    import lm_eval
    import torch
    from lm_eval.tasks import TaskManager

    from lm_eval_eglr.harness import plugin

    torch.set_num_threads(threads)
    plugin.install()
    arguments = {
        "pretrained": str(folder / "model"),
        "rollouts": str(rollouts),
        "spans": "0:2",
        "temperatures": "0:0.7x2",
        "entropy_threshold": 0.1,
        "device": "cpu",
        "dtype": "float32",
        **model_args,
    }
    results: dict[str, Any] = lm_eval.simple_evaluate(
        model="hf-eglr",
        model_args={name: value for name, value in arguments.items() if value is not None},
        tasks=["toy_eglr"],
        task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
        limit=limit,
        bootstrap_iters=0,
    )
    return results


if __name__ == "__main__":
    run_tiny(Path(sys.argv[1]), Path(sys.argv[2]))
