"""The model that ships as ``demo``: what it is, how it is named, what it reads, and that it is a student."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
import torch
from examples_of_demo import GENERATOR, TOKENIZER, TRAINING
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.harness.model import EGLRLM
from lm_eval_eglr.paths import DEMO_FOLDER, resolve
from lm_eval_eglr.problems.prompts import zero_shot_prompt


@pytest.fixture(scope="module")
def demo() -> EGLRLM:
    return EGLRLM("demo", device="cpu", spans="0", temperatures="0", batch_size=64)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DEMO_FOLDER)


def test_it_is_a_small_standard_checkpoint() -> None:
    assert sum(path.stat().st_size for path in DEMO_FOLDER.iterdir()) <= 4e6
    model = AutoModelForCausalLM.from_pretrained(DEMO_FOLDER)
    assert isinstance(model, LlamaForCausalLM)
    assert model.dtype == torch.float32  # in which it is computed with
    with safe_open(DEMO_FOLDER / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert model.config.num_hidden_layers >= 8
    assert model.generation_config.eos_token_id is not None
    assert (DEMO_FOLDER / "model.safetensors").is_file()


def test_words_and_digits_are_single_tokens(tokenizer) -> None:
    problem = GENERATOR.held_out(1)[0]
    pieces = [tokenizer.decode([token]) for token in tokenizer(problem.problem).input_ids]
    assert pieces == re.findall(TOKENIZER.PIECES, problem.problem)
    assert [tokenizer.decode([token]) for token in tokenizer("1234").input_ids] == ["1", "2", "3", "4"]


@given(text=st.text())
def test_no_text_is_lost(text: str, tokenizer) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_tokenizer_is_the_one_that_the_script_builds(tokenizer) -> None:
    built = TOKENIZER.build_tokenizer()
    assert json.loads(built.backend_tokenizer.to_str()) == json.loads(tokenizer.backend_tokenizer.to_str())
    assert built.chat_template == tokenizer.chat_template


def test_it_was_trained_on_the_prompt_that_the_task_asks(demo: EGLRLM, load) -> None:
    task = load("demo_eglr")
    task.set_config("num_fewshot", 0)
    task.build_all_requests(limit=8, apply_chat_template=True, chat_template=demo.apply_chat_template)
    for request, problem in zip(task.instances, GENERATOR.held_out(8), strict=True):
        asked = request.args[0]
        assert asked == TRAINING.chat(problem)
        assert demo.tok_encode(asked) == demo.tokenizer(asked, add_special_tokens=False).input_ids
        assert zero_shot_prompt(problem.problem) in asked
        assert TOKENIZER.PROMPT.format(problem=problem.problem) == zero_shot_prompt(problem.problem)


def test_examples_and_labels_of_training_are_prompts_and_solutions(tokenizer) -> None:
    ids, labels = next(TRAINING.batches(tokenizer, 4, 0))
    assert ids.shape == labels.shape
    for row, wanted in zip(ids, labels, strict=True):
        solution = wanted[wanted != TRAINING.IGNORED]
        text = tokenizer.decode(row)
        assert tokenizer.decode(solution).endswith("}.<|end|>")
        assert "within \\boxed{}." in text.partition(tokenizer.decode(solution))[0]


def test_demo_is_ours_and_a_folder_has_a_path(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert resolve("demo") == str(DEMO_FOLDER)
    assert not caplog.records
    Path("demo").mkdir()
    with caplog.at_level(logging.WARNING):
        assert resolve("demo") == str(DEMO_FOLDER)
    assert "the folder of that name here is ./demo" in caplog.text
    assert resolve("./demo") == "./demo"


def test_the_store_of_a_run_names_it_demo(tmp_path: Path) -> None:
    from lm_eval_eglr.harness.fingerprint import manifest_of

    model = EGLRLM("demo", device="cpu", rollouts=str(tmp_path))
    assert model._manifest.model == "demo"
    assert manifest_of(model._decoder, model.model, "demo", None).fingerprint["depth"] == 8
    assert len(model._decoder.cells) == 16


def accuracy(count: int) -> float:
    decoder = PoolDecoder.from_pretrained("demo", spans="0", temperatures="0")
    chosen = GENERATOR.held_out(count)
    prompts = [[{"role": "user", "content": zero_shot_prompt(each.problem)}] for each in chosen]
    pools = decoder.generate(prompts, max_new_tokens=160, progress=False)
    right = [f"\\boxed{{{e.answer}}}" in pool[0].text for e, pool in zip(chosen, pools, strict=True)]
    return sum(right) / count


def test_it_solves_some_problems_and_not_all() -> None:
    assert 0.25 < accuracy(60) < 0.9


@pytest.mark.slow
def test_it_is_a_student() -> None:
    assert 0.40 < accuracy(500) < 0.75
