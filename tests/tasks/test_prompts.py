"""What the model reads: every benchmark, with and without chat template, system instruction, examples."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from eglr_selectors import Rules, extract, grade
from our_tasks import task_manager

from lm_eval_eglr.harness.model import EGLRLM
from lm_eval_eglr.harness.plugin import check_runs
from lm_eval_eglr.problems.prompts import STOP, prompt_hash

BENCHMARKS = ("math500", "gsm8k", "aime24", "aime25", "amc23", "minerva_math", "olympiadbench", "svamp")
Load = Callable[..., Any]
PROBLEM = "How many sides has a square?"


@pytest.fixture
def one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every benchmark has one problem, so that no data are needed."""
    row = {"id": "0", "problem": PROBLEM, "answer": "4"}
    monkeypatch.setattr(
        "lm_eval_eglr.harness.task.load_problems", lambda *a: datasets.Dataset.from_list([row])
    )


def chat(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    turns = "".join(f"<{message['role']}>{message['content']}\n" for message in messages)
    return turns + ("<assistant>" if add_generation_prompt else "")


def prompt(task: Any, shots: int = 0, **options: Any) -> str:
    task.set_config("num_fewshot", shots)
    if options.get("apply_chat_template"):
        options["chat_template"] = chat
    task.build_all_requests(limit=1, **options)
    return str(task.instances[0].args[0])


@pytest.mark.parametrize("name", BENCHMARKS)
def test_zero_shot_asks_for_reasoning_and_a_box(name: str, one_problem: None, load: Load) -> None:
    task = load(f"{name}_eglr")
    plain = prompt(task)
    assert plain.startswith(f"{PROBLEM}\n\nPlease reason step by step")
    assert r"\boxed{}" in plain
    assert task.instances[0].args[1]["until"] == []
    assert prompt(task, apply_chat_template=True) == f"<user>{plain}\n<assistant>"
    assert prompt(task, system_instruction="Be brief.") == f"Be brief.\n\n{plain}"
    with_system = prompt(task, apply_chat_template=True, system_instruction="Be brief.")
    assert with_system == f"<system>Be brief.\n<user>{plain}\n<assistant>"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_base_models_get_problems_and_solutions(name: str, one_problem: None, load: Load) -> None:
    task = load(f"{name}_eglr")
    text = prompt(task, shots=4, system_instruction="Be brief.")
    system, *examples, last = text.split("\n\n")
    assert system == "Be brief."
    assert len(examples) == 4
    assert all(each.startswith("Problem: ") and "\nSolution: " in each for each in examples)
    assert last == f"Problem: {PROBLEM}\nSolution:"
    assert task.instances[0].args[1]["until"] == [STOP]
    prompt(task)  # the stop string belongs to this form only
    assert task.instances[0].args[1]["until"] == []


def test_worked_examples_as_turns_or_in_one(one_problem: None, load: Load) -> None:
    task = load("gsm8k_eglr")
    turns = prompt(task, shots=2, apply_chat_template=True, fewshot_as_multiturn=True)
    assert turns.count("<user>") == 3
    assert turns.count("<assistant>") == 3
    one = prompt(task, shots=2, apply_chat_template=True, fewshot_as_multiturn=False)
    assert one.count("<user>") == one.count("<assistant>") == 1
    assert one.count("Please reason step by step") == turns.count("Please reason step by step") == 3
    assert task.instances[0].args[1]["until"] == []


def test_more_examples_than_there_are(one_problem: None, load: Load) -> None:
    with pytest.raises(ValueError, match="num_fewshot=9: gsm8k_eglr has 8 worked examples"):
        prompt(load("gsm8k_eglr"), shots=9)


ANSWERS = {
    "math500": ["5", r"\frac{2}{13}", "10", "(0, 4)"],
    "gsm8k": [str(number) for number in (15 - 4 + 9, 6 * 4 - 3, 50 - 3 * 12, 28 // 7 * 2, 46, 24, 25, 66)],
    "minerva_math": ["1.0", "2.6e31", "(2x - x^2) e^{-x}", "4 + 2q"],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_worked_examples_end_in_their_answer(
    name: str, task_options: Callable[[str], dict[str, Any]]
) -> None:
    options = task_options(name)
    samples = options["fewshot_config"]["samples"]
    assert len(samples) == len(ANSWERS[name])
    for sample, answer in zip(samples, ANSWERS[name], strict=True):
        assert sample["solution"].count(r"\boxed") == 1
        assert grade(answer, extract(sample["solution"]), Rules.named(options["metadata"]["rules"])).correct


def test_no_worked_example_is_a_problem_of_a_benchmark(benchmarks: Path, load: Load) -> None:
    def words(text: str) -> str:
        return "".join(filter(str.isalnum, text.lower()))

    problems, examples = set(), set()
    for name in BENCHMARKS:
        task = load(f"{name}_eglr", data_dir=str(benchmarks))
        problems |= {words(problem) for problem in task.eval_docs["problem"]}
        examples |= {words(sample["problem"]) for sample in task.fewshot_docs()}
    problems |= {words(problem) for problem in load("demo_eglr").eval_docs["problem"]}
    assert len(examples) == 16
    assert not examples & problems


def test_the_hash_names_template_and_examples() -> None:
    assert prompt_hash("a", []) == prompt_hash("a", [])
    assert len({prompt_hash("a", []), prompt_hash("b", []), prompt_hash("a", [{"problem": "p"}])}) == 3


@pytest.fixture(scope="module")
def model(spoken_model: Path) -> EGLRLM:
    return EGLRLM(str(spoken_model), dtype="float32", device="cpu", temperatures="0", spans="0")


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("shots", [0, 3])
def test_one_bos_however_the_prompt_is_made(applied: bool, shots: int, model: EGLRLM) -> None:
    task = task_manager().load(["demo_eglr"])["tasks"]["demo_eglr"]
    task.set_config("num_fewshot", shots)
    task.build_all_requests(
        limit=1,
        apply_chat_template=applied,
        chat_template=model.apply_chat_template if applied else None,
        fewshot_as_multiturn=applied,
    )
    text = task.instances[0].args[0]
    assert text.startswith("<s>") == applied  # the template writes it
    bos = model.tokenizer.bos_token_id
    assert model.tok_encode(text).count(bos) == 1
    assert model.tok_encode(text)[0] == bos
    batch, _ = model.tok_batch_encode([text])
    assert batch[0].tolist().count(bos) == 1


@pytest.mark.parametrize(
    ("template", "applied", "warnings"),
    [("{{ messages }}", False, 1), ("{{ messages }}", True, 0), (None, False, 0)],
)
def test_a_template_that_is_not_applied_is_warned_of_once(
    template: str | None,
    applied: bool,
    warnings: int,
    load: Load,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def evaluate(lm: Any, task_dict: Any, limit: Any = None, apply_chat_template: bool = False) -> str:
        return "done"

    module: Any = SimpleNamespace(evaluate=evaluate)
    check_runs(module)
    check_runs(module)
    lm = SimpleNamespace(rank=0, world_size=1, tokenizer=SimpleNamespace(chat_template=template))
    tasks = {"tasks": {"demo_eglr": load("demo_eglr")}, "groups": {}}
    with caplog.at_level(logging.WARNING):
        assert module.evaluate(lm, tasks, apply_chat_template=applied) == "done"
        assert module.evaluate(lm, {"tasks": {}, "groups": {}}) == "done"
    assert len([record for record in caplog.records if "--apply_chat_template" in record.message]) == warnings


@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"temperature": 0.5}])
def test_repeats_of_greedy_decoding_are_warned_of(
    options: dict[str, Any], load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    module: Any = SimpleNamespace(evaluate=lambda lm, task_dict: "done")
    check_runs(module)
    task = load("demo_eglr", repeats=4)
    task.set_config("generation_kwargs", options, update=True)
    with caplog.at_level(logging.WARNING):
        module.evaluate(SimpleNamespace(rank=0, world_size=1), {"tasks": {"demo_eglr": task}, "groups": {}})
    assert ("repeats=4 of a greedy decoding are 4 equal texts" in caplog.text) is not bool(options)


@pytest.mark.parametrize("repeats", [0, -1, 1.5, True, "3"])
def test_bad_repeats_are_refused(repeats: Any, load: Load) -> None:
    with pytest.raises(ValueError, match=r"repeats=.*: expected an integer >= 1"):
        load("demo_eglr", repeats=repeats)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"selectors": "majorty"}, "majorty"),
        ({"rules": "loose"}, "rules 'loose'"),
        ({"fallbacks": "[guess]"}, "fallbacks"),
    ],
)
def test_bad_metadata_is_refused(metadata: dict[str, Any], message: str, load: Load) -> None:
    with pytest.raises(ValueError, match=message):
        load("demo_eglr", **metadata)
