"""Pools as rollouts: of the weights as they are, the same for the same run, with what is known of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
from datasets import Dataset
from eglr_selectors import Cell, Telemetry
from tiny_models import byte_tokenizer, tiny_model
from training_runs import CELLS, GRID, PROMPTS, GRPOTrainer, Recorder, trainer

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.recurrent.demo_student import RecurrentStudentForCausalLM
from lm_eval_eglr.recurrent.demo_student_layers import RecurrentStudentConfig
from lm_eval_eglr.trl import PoolGRPOTrainer, PoolRollouts


class GreedyCheck(Recorder):
    """Decodes the greedy cells of every step again, with a new model of the weights as they are then."""

    trainer: Any

    def __call__(self, **fields: Any) -> list[float]:
        rewards = super().__call__(**fields)
        trained = copy.deepcopy(self.trainer.model)
        trained = trained.merge_and_unload() if isinstance(trained, peft.PeftModel) else trained
        model = tiny_model()
        model.load_state_dict(trained.state_dict())
        fresh = PoolDecoder(model, byte_tokenizer(), spans="0:2", temperatures=0, entropy_threshold=0.1)
        prompts = fields["prompts"][::CELLS]
        pools = fresh.generate(prompts, max_new_tokens=6, progress=False)
        wanted = [rollout.tokens for pool in pools for rollout in pool]
        greedy = [i for i, temperature in enumerate(fields["temperature"]) if temperature == 0]
        assert [tuple(fields["completion_ids"][i]) for i in greedy] == wanted
        return rewards


@pytest.mark.parametrize("kind", ["plain", "checkpointing", "dropout", "lora", "mixed precision"])
def test_every_step_decodes_the_weights_as_they_are(kind: str, tmp_path: Path) -> None:
    check = GreedyCheck()
    model = tiny_model(attention_dropout=0.5) if kind == "dropout" else tiny_model()
    lora = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"])
    run = trainer(
        tmp_path,
        model=model,
        reward=check,
        settings={
            "max_steps": 3,
            "learning_rate": 0.3,
            "gradient_checkpointing": kind == "checkpointing",
            "bf16": kind == "mixed precision",
        },
        # TRL's own trainer first asks for rollouts when accelerate has wrapped the model.
        kind=GRPOTrainer if kind == "mixed precision" else PoolGRPOTrainer,
        peft_config=lora if kind == "lora" else None,
    )
    check.trainer = run
    run.train()
    assert run.model.training, "left as it was found"
    assert len(check.calls) == 3
    first, *later = (tuple(map(tuple, step[: 2 * CELLS])) for step in check.completions)
    assert any(step != first for step in later), "the weights changed what is decoded"


def test_plain_samples_at_the_temperature_of_the_policy_have_ratio_one(tmp_path: Path) -> None:
    rollouts = PoolRollouts(spans="0", temperatures="0.8x4")
    model = tiny_model(attention_dropout=0.5)
    run = trainer(tmp_path, rollouts, model=model, settings={"temperature": 0.8, "learning_rate": 1e-3})
    run.train()
    for step in run.state.log_history[:2]:
        for name in ("min", "mean", "max"):
            assert step[f"sampling/importance_sampling_ratio/{name}"] == pytest.approx(1, abs=1e-3)
        assert step["sampling/recursed_tokens"] == step["sampling/clipped_tokens"] == 0


def test_reward_functions_see_where_a_rollout_comes_from(tmp_path: Path) -> None:
    seen = Recorder()
    trainer(tmp_path, reward=seen, settings={"max_steps": 1}).train()
    [call] = seen.calls
    grid = [Cell(0, 0.0), Cell(0, 0.7), Cell(2, 0.0), Cell(2, 0.7)]
    assert call["cell"] == grid * 2
    assert call["span"] == [cell.span for cell in grid] * 2
    assert call["temperature"] == [cell.temperature for cell in grid] * 2
    assert call["prompts"] == [PROMPTS[0]] * CELLS + [PROMPTS[1]] * CELLS
    for ids, telemetry, truncated in zip(
        call["completion_ids"], call["telemetry"], call["truncated"], strict=True
    ):
        assert isinstance(telemetry, Telemetry)
        assert len(telemetry.token_sampling_logprobs) == len(telemetry.token_iterations) == len(ids)
        assert truncated == (len(ids) == 6 and ids[-1] != 256)


def test_the_same_run_has_the_same_rollouts_and_no_step_those_of_another(tmp_path: Path) -> None:
    def completions(**changes: Any) -> list[list[list[int]]]:
        seen = Recorder()
        options = {**GRID, "temperatures": "1x2", **changes}
        run = trainer(
            tmp_path,
            PoolRollouts(**options),
            prompts=PROMPTS[:1],
            reward=seen,
            settings={
                "max_steps": 3,
                "num_train_epochs": 3,
                "per_device_train_batch_size": CELLS,
                "learning_rate": 0.0,
            },
        )
        run.train()
        return seen.completions

    one = completions()
    assert one == completions()
    assert len({repr(step) for step in one}) == 3, "each step has draws of its own"
    assert one != completions(seed=7)


def test_a_prompt_that_comes_twice_gets_two_pools(tmp_path: Path) -> None:
    seen = Recorder()
    rollouts = PoolRollouts(**{**GRID, "temperatures": "1x2"})
    trainer(tmp_path, rollouts, prompts=[PROMPTS[0]] * 2, reward=seen, settings={"max_steps": 1}).train()
    [both] = seen.completions
    assert both[:CELLS] != both[CELLS:]


def test_a_resumed_run_goes_on_with_the_rollouts_that_it_would_have_had(tmp_path: Path) -> None:
    def completions(folder: Path, resume: bool, steps: int) -> list[list[list[int]]]:
        seen = Recorder()
        run = trainer(
            folder,
            reward=seen,
            settings={"max_steps": steps, "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-3},
        )
        run.train(resume_from_checkpoint=resume or None)
        return seen.completions

    whole = completions(tmp_path / "whole", False, 2)
    half = completions(tmp_path / "halves", False, 1)
    assert half + completions(tmp_path / "halves", True, 2) == whole


def test_evaluation_may_have_a_grid_of_its_own(tmp_path: Path) -> None:
    seen = Recorder()
    run = trainer(
        tmp_path,
        PoolRollouts(**GRID, eval_spans="0", eval_temperatures="0"),
        reward=seen,
        settings={"num_generations_eval": 1, "per_device_eval_batch_size": 4},
        eval_dataset=Dataset.from_dict({"prompt": PROMPTS}),
    )
    run.evaluate()
    [call] = seen.calls
    assert call["cell"] == [Cell(0, 0.0)] * 4
    assert sorted(call["prompts"]) == sorted(PROMPTS)


def test_the_chat_template_gets_the_options_of_the_run(tmp_path: Path) -> None:
    template = (
        "{% for message in messages %}{{ message['content'] }}{% endfor %}{% if think %}<t>{% endif %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    tokenizer = byte_tokenizer(chat_template=template)
    chat = [{"role": "user", "content": "hi"}]
    ids: list[Any] = []

    def spy(prompts: list[Any], run: Any) -> dict[str, Any]:
        fields = PoolRollouts(**GRID)(prompts, run)
        ids.extend(fields["prompt_ids"])
        return fields

    for options, text in (({}, "hi>"), ({"think": True}, "hi<t>>")):
        ids.clear()
        trainer(
            tmp_path,
            spy,
            prompts=[chat, chat],
            processing_class=tokenizer,
            settings={"max_steps": 1, "chat_template_kwargs": options},
        ).train()
        assert ids == [tokenizer(text).input_ids] * 2 * CELLS


def test_a_trainer_without_the_ratio_is_warned_of(tmp_path: Path) -> None:
    run = trainer(tmp_path, settings={"max_steps": 1}, kind=GRPOTrainer)
    with pytest.warns(UserWarning, match="PoolGRPOTrainer weighs them by the importance ratio"):
        run.train()


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"temperatures": "0.7x3"}, {}, r"2 spans x 3 temperatures = 6 cells, but num_generations=4"),
        ({"spans": "0:2:4"}, {}, r"3 spans x 2 temperatures = 6 cells, but num_generations=4"),
        ({}, {"top_p": 0.9}, r"top_p=0\.9: .*give PoolRollouts\(top_p=\)"),
        ({}, {"repetition_penalty": 1.1}, r"repetition_penalty=1\.1: .*leave it at its default"),
        ({}, {"use_vllm": True}, r"use_vllm"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_step(
    options: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, ImportError), match=message):
        trainer(tmp_path, PoolRollouts(**{**GRID, **options}), settings=settings)


def test_a_recurrent_depth_model_is_refused_before_a_step(tmp_path: Path) -> None:
    config = RecurrentStudentConfig(
        vocab_size=len(byte_tokenizer()),
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=2,
        mean_recurrence=2,
        pad_token_id=0,
    )
    model = RecurrentStudentForCausalLM(config)
    rollouts = PoolRollouts(temperatures="0.7x4")  # cells enough, at the model's own depth
    with pytest.raises(ValueError, match="model=RecurrentStudentForCausalLM: PoolRollouts draws from spans"):
        trainer(tmp_path, rollouts, model=model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "eager"}, "strategy='eager'"),
        ({"trace": False}, "trace=False"),
        ({"recurrences": "1:2"}, "recurrences='1:2': PoolRollouts draws from spans"),
        ({"seed": -1}, "seed=-1: expected an integer >= 0"),
        ({"seed": True}, "seed=True: expected an integer >= 0"),
        ({"entropy_treshold": 1}, "entropy_treshold=1: unknown option"),
        ({"top_p": 0}, "top_p=0: expected a number > 0"),
    ],
)
def test_bad_options_are_refused_when_the_rollouts_are_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PoolRollouts(**options)
