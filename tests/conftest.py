"""Shared fixtures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Nothing here may wait for a hub that is not there; its client reads this once, when it is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
import torch.utils.collect_env
from eglr_selectors import available_selectors, registry
from eglr_selectors.verifiers import available_verifiers
from eglr_selectors.verifiers import registry as verifier_registry
from transformers import PreTrainedModel, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parent))

from stock_tasks import leave_out_stock_tasks
from tiny_models import byte_tokenizer, tiny_model

# A tiny model gains nothing from threads, and threads that wait for a busy core cost a hundredfold.
torch.set_num_threads(1)
# lm_eval asks `pip list` and the like after every run, which takes longer than the tests' models.
torch.utils.collect_env.get_pretty_env_info = lambda: "not asked"
leave_out_stock_tasks()


# Begun first where workers take whole files, so that none is alone with one of them at the end: by the
# processor time of their fast tests, from two minutes to fifteen seconds; all of the first one's are slow.
SLOWEST = (
    "harness/test_processes.py",
    "docs/test_pages.py",
    "recurrent/test_recurrences.py",
    "harness/test_main_job.py",
    "decoding/test_pretended_cuda.py",
    "decoding/test_shortage.py",
    "decoding/test_exactness.py",
    "decoding/test_shared_prompts.py",
    "store/test_strange_files.py",
    "reports/test_page.py",
    "docs/test_site.py",
    "decoding/test_compiled_layers.py",
    "harness/test_packaging.py",
    "decoding/test_invariance.py",
    "trl/test_rollouts.py",
    "decoding/test_step_graphs.py",
    "grading/test_grading_workers.py",
    "store/test_faults_of_runs.py",
    "store/test_demo_command.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(SLOWEST)}
    gone = [str(path) for path in ranks if not path.is_file()]
    assert not gone, f"SLOWEST names files that are not there: {', '.join(gone)}"
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def llama() -> PreTrainedModel:
    return tiny_model("llama")


@pytest.fixture
def own_registrations() -> Iterator[None]:
    """What a test registers is gone after it, and its name free: other tests list what the library brings."""
    available_selectors(), available_verifiers()  # the library's own are there for good
    tables = [registry._REGISTRY._entries, verifier_registry._REGISTRY._entries]
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)
