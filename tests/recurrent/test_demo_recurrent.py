"""The model that ships as ``demo-recurrent``: what it is, how it is named, and that more iterations help."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_eglr.decoding import PoolDecoder  # registers the model with transformers
from lm_eval_eglr.paths import DEMO_FOLDER, SHIPPED, resolve

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tasks"))

from examples_of_demo import GENERATOR, TRAINING

FOLDER = SHIPPED["demo-recurrent"]


@pytest.fixture(scope="module")
def student():
    assert PoolDecoder is not None
    return AutoModelForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


def test_it_is_a_small_checkpoint_of_a_class_that_transformers_is_told_of(student) -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 4e6
    assert type(student).__name__ == "RecurrentStudentForCausalLM"
    assert student.dtype == torch.float32  # in which it is computed with
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert student.generation_config.eos_token_id is not None


def test_it_reads_and_asks_as_the_other_demo_model(tokenizer) -> None:
    other = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    texts = [json.loads(each.backend_tokenizer.to_str()) for each in (tokenizer, other)]
    assert texts[0] == texts[1]
    assert tokenizer.chat_template == other.chat_template


def test_its_name_is_ours_and_a_folder_has_a_path(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    with caplog.at_level(logging.WARNING):
        assert resolve("demo-recurrent") == str(FOLDER)
    assert not caplog.records
    Path("demo-recurrent").mkdir()
    with caplog.at_level(logging.WARNING):
        assert resolve("demo-recurrent") == str(FOLDER)
    assert "the folder of that name here is ./demo-recurrent" in caplog.text
    assert resolve("./demo-recurrent") == "./demo-recurrent"
    assert resolve("demo-other") == "demo-other"


@torch.no_grad()
def test_its_generation_depends_on_no_draw_and_on_no_cache(student, tokenizer) -> None:
    ids = tokenizer(TRAINING.chat(GENERATOR.held_out(1)[0]), return_tensors="pt").input_ids
    found = []
    for seed, cached in ((1, True), (2, True), (3, False)):
        torch.manual_seed(seed)
        options = {"max_new_tokens": 12, "do_sample": False, "use_cache": cached}
        found.append(student.generate(ids, num_steps=4, **options))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_more_iterations_solve_more_problems_until_they_level_off(student, tokenizer) -> None:
    chosen = GENERATOR.held_out(60)
    one, four, eight = (TRAINING.accuracy(student, tokenizer, chosen, num_steps=steps) for steps in (1, 4, 8))
    assert one + 0.15 < four <= eight + 0.1
    assert 0.25 < eight < 0.9


@pytest.mark.slow
def test_it_is_a_student(student, tokenizer) -> None:
    chosen = GENERATOR.held_out(150)
    shares = [TRAINING.accuracy(student, tokenizer, chosen, num_steps=steps) for steps in (1, 2, 4, 8, 16)]
    assert shares[0] < shares[1] < shares[2]
    assert 0.40 < shares[3] < 0.80
    assert abs(shares[4] - shares[3]) < 0.1
