"""What the tests of tasks share: the folder of benchmark files, a tiny model, a task manager."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval_command import command
from our_tasks import task_manager

__all__ = ["command"]

SHARED_VARIABLE = "EGLR_SHARED_DIR"
ROOT = Path(__file__).resolve().parents[2]


def shared_benchmarks() -> Path:
    """The folder of benchmark files: in $EGLR_SHARED_DIR, else in ``shared`` beside or in the checkout."""
    named = os.environ.get(SHARED_VARIABLE)
    for folder in [Path(named)] if named else [ROOT.parent / "shared", ROOT / "shared"]:
        if (folder / "benchmarks").is_dir():
            return folder / "benchmarks"
    pytest.skip(f"no benchmark files beside the checkout; {SHARED_VARIABLE} may name their folder")


@pytest.fixture(scope="session")
def benchmarks() -> Path:
    return shared_benchmarks()


@pytest.fixture
def load() -> Callable[..., Any]:
    """Builds one of our tasks, with metadata as of ``--metadata``."""
    return lambda name, **metadata: task_manager(**metadata).load([name])["tasks"][name]


@pytest.fixture(scope="session")
def tasks() -> Path:
    """The folder of task definitions."""
    from lm_eval_eglr.paths import tasks_folder

    return tasks_folder()


@pytest.fixture
def task_options(tasks: Path) -> Callable[[str], dict[str, Any]]:
    """Reads a task's YAML file without building the task."""
    from lm_eval.tasks._yaml_loader import load_yaml

    return lambda name: load_yaml(tasks / name / f"{name}_eglr.yaml")


@pytest.fixture(scope="session")
def spoken_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved random Llama of few words, so that boxes are likely; its chat template writes BOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = [
        "<unk>",
        "<s>",
        "</s>",
        *(rf"\boxed{{{number}}}" for number in (6, 14, 62, 128)),
        "so",
        "then",
        "3",
    ]
    words += ["user", "assistant", "system", "Problem", "Solution", ":"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    fast.chat_template = (
        "{{ bos_token }}{% for message in messages %} {{ message['role'] }} : {{ message['content'] }} "
        "{% endfor %}{% if add_generation_prompt %} assistant : {% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("spoken")
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
