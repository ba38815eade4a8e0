"""Shared fixtures."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import torch.utils.collect_env
from lm_eval.tasks import _index as task_index
from transformers import PreTrainedModel, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import byte_tokenizer, tiny_model

# A tiny model gains nothing from threads, and threads that wait for a busy core cost a hundredfold.
torch.set_num_threads(1)
# lm_eval asks `pip list` and the like after every run, which takes longer than the tests' models.
torch.utils.collect_env.get_pretty_env_info = lambda: "not asked"


def index_stock_tasks_once() -> None:
    """Reads lm_eval's own task files, twelve thousand, once per session instead of once per run."""
    stock = Path(task_index.__file__).parent
    build = task_index.TaskIndex.build
    known: dict[str, task_index.Entry] = {}

    def build_cached(paths: Iterable[Path], *, resolve_includes: bool = True) -> dict[str, task_index.Entry]:
        first, *others = paths
        if Path(first) != stock or not resolve_includes:
            return build([first, *others], resolve_includes=resolve_includes)
        if not known:
            known.update(build([stock]))
        return {**known, **build(others)}

    task_index.TaskIndex.build = staticmethod(build_cached)


index_stock_tasks_once()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def llama() -> PreTrainedModel:
    return tiny_model("llama")
