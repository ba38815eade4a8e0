"""The gradient against closed forms: a model of two tokens, rollouts drawn from another distribution.

Tokens are a and b; b ends a completion, and so does a second token. The rollouts are drawn from q, which
gives either token with 1/2 wherever it is, and they are not drawn by chance: all groups of two that q can
give are there, each as often as q gives it. So the gradient of a step is its expectation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from eglr_selectors import Telemetry
from tiny_models import tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from training_runs import config
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lm_eval_eglr.trl import PoolGRPOTrainer

A, B = 0, 1
LOG_Q = math.log(1 / 2)
ONE = [(A,), (B,)]
"""Completions of one token as equally likely cases."""
TWO = [(B,), (B,), (A, A), (A, B)]
"""The same of up to two tokens."""
REWARDS = {(A,): 1.0, (B,): 0.25, (A, A): -0.5, (A, B): 1.0}
BASELINE = 1 - 1 / 2
"""A group's mean has the rollout's own reward in it, which takes this much from every gradient."""


def two_tokens() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = Tokenizer(models.WordLevel({"a": A, "b": B}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="b", pad_token="b")
    return tiny_model(vocab_size=2, eos_token_id=B, pad_token_id=B, tie_word_embeddings=False), fast


def reward(completion_ids: list[list[int]], **fields: Any) -> list[float]:
    return [REWARDS[tuple(ids)] for ids in completion_ids]


def step_of_trainer(
    folder: Path,
    cases: list[tuple[int, ...]],
    *,
    metrics: dict[str, float] | None = None,
    settings: dict[str, Any] | None = None,
    fields: Callable[[tuple[int, ...]], dict[str, Any]] = lambda completion: {},
    **options: Any,
) -> Tensor:
    """What one step of plain gradient descent adds to the parameters: minus the gradient of the loss."""
    rollouts = [completion for group in itertools.product(cases, repeat=2) for completion in group]

    def all_groups(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        assert len(prompts) == len(rollouts)
        extra = [fields(completion) for completion in rollouts]
        return {
            **{name: [each[name] for each in extra] for name in extra[0]},
            "prompt_ids": [[A]] * len(rollouts),
            "completion_ids": [list(completion) for completion in rollouts],
            "logprobs": [[LOG_Q] * len(completion) for completion in rollouts],
        }

    model, tokenizer = two_tokens()
    before = parameters(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer = PoolGRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config(
            folder,
            max_steps=1,
            num_generations=2,
            per_device_train_batch_size=len(rollouts),
            max_completion_length=max(map(len, cases)),
            scale_rewards="none",
            max_grad_norm=0.0,
            **(settings or {"loss_type": "dr_grpo"}),
        ),
        train_dataset=Dataset.from_dict({"prompt": ["a"] * (len(rollouts) // 2)}),
        processing_class=tokenizer,
        rollout_func=all_groups,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
        **options,
    )
    trainer.train()
    if metrics is not None:
        metrics.update(trainer.state.log_history[0])
    return parameters(model) - before


def parameters(model: PreTrainedModel) -> Tensor:
    return torch.cat([each.detach().flatten().clone() for each in model.parameters()])


def closed_form(cases: list[tuple[int, ...]], value: Any) -> Tensor:
    """The gradient by the parameters of a function of the log-probabilities of the cases."""
    model, _ = two_tokens()
    value(logprobs_of(model, cases)).backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([gradient.flatten() for gradient in gradients])


def logprobs_of(model: PreTrainedModel, cases: list[tuple[int, ...]]) -> dict[tuple[int, ...], Tensor]:
    return {
        case: sum(
            model(torch.tensor([[A, *case[:i]]])).logits[0, -1].log_softmax(-1)[token]
            for i, token in enumerate(case)
        )
        for case in set(cases)
    }


def expected_reward(logprobs: dict[tuple[int, ...], Tensor]) -> Tensor:
    """J = E_p[R], whose gradient the policy should go along."""
    return sum(logprob.exp() * REWARDS[case] for case, logprob in logprobs.items())


def as_if_drawn_from_the_policy(logprobs: dict[tuple[int, ...], Tensor]) -> Tensor:
    """Has the gradient E_q[(R - E_q[R]) d ln p], which is what comes out where q is taken for p."""
    q = {case: math.exp(LOG_Q * len(case)) for case in logprobs}
    mean = sum(q[case] * REWARDS[case] for case in logprobs)
    return sum(q[case] * (REWARDS[case] - mean) * logprob for case, logprob in logprobs.items())


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("token_truncate", {"loss_type": "grpo"}),
        ("token_mask", {"loss_type": "dapo"}),
        ("sequence_truncate", {"loss_type": "dr_grpo"}),
        ("sequence_mask", {"loss_type": "cispo", "epsilon_high": 5.0}),
    ],
)
def test_the_ratio_makes_the_gradient_that_of_the_expected_reward(
    mode: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    step = step_of_trainer(
        tmp_path, ONE, settings=settings, importance_sampling_mode=mode, importance_sampling_clip_max=None
    )
    torch.testing.assert_close(step, BASELINE * closed_form(ONE, expected_reward), rtol=1e-3, atol=1e-6)


def test_without_it_the_gradient_is_biased(tmp_path: Path) -> None:
    step = step_of_trainer(tmp_path, ONE, importance_sampling_mode="none")
    biased = BASELINE * closed_form(ONE, as_if_drawn_from_the_policy)
    torch.testing.assert_close(step, biased, rtol=1e-3, atol=1e-6)
    wanted = BASELINE * closed_form(ONE, expected_reward)
    assert (step - wanted).norm() > 0.2 * wanted.norm()


def test_the_ratio_of_whole_rollouts_is_exact_for_longer_ones(tmp_path: Path) -> None:
    length = 2  # what this loss divides every sum by
    wanted = BASELINE / length * closed_form(TWO, expected_reward)
    step = step_of_trainer(
        tmp_path, TWO, importance_sampling_mode="sequence_truncate", importance_sampling_clip_max=None
    )
    torch.testing.assert_close(step, wanted, rtol=1e-3, atol=1e-6)
    biased = step_of_trainer(tmp_path, TWO, importance_sampling_mode="none")
    torch.testing.assert_close(
        biased, BASELINE / length * closed_form(TWO, as_if_drawn_from_the_policy), rtol=1e-3, atol=1e-6
    )
    assert torch.cosine_similarity(biased, wanted, dim=0) < 0.9, "it points elsewhere"


def test_ratios_beyond_the_bound_are_cut_and_counted(tmp_path: Path) -> None:
    with torch.no_grad():
        exact = [math.exp(each - LOG_Q) for each in logprobs_of(two_tokens()[0], ONE).values()]
    bound = (1 + max(exact)) / 2
    assert min(exact) < 1 < bound < max(exact)
    metrics: dict[str, float] = {}
    cut = step_of_trainer(tmp_path, ONE, metrics=metrics, importance_sampling_clip_max=bound)
    assert metrics["sampling/clipped_tokens"] == pytest.approx(1 / 2)
    name = "sampling/importance_sampling_ratio"
    assert metrics[f"{name}/max"] == pytest.approx(bound, rel=1e-4)
    assert metrics[f"{name}/min"] == pytest.approx(min(exact), rel=1e-4)
    assert metrics[f"{name}/mean"] == pytest.approx((min(exact) + bound) / 2, rel=1e-4)
    masked = step_of_trainer(
        tmp_path, ONE, importance_sampling_mode="token_mask", importance_sampling_clip_max=bound
    )
    assert 0 < masked.norm() < cut.norm()


def test_the_divergence_of_the_recursion_is_estimated_without_bias(tmp_path: Path) -> None:
    """Recursed tokens are drawn from q, not from p_L, and every second one here was not recursed."""
    span = {A: 0.8, B: 0.2}

    def fields(completion: tuple[int, ...]) -> dict[str, Any]:
        traces = {
            "token_iterations": (1, 0)[: len(completion)],
            "token_logprobs": tuple(math.log(span[token]) for token in completion),
            "token_sampling_logprobs": (LOG_Q,) * len(completion),
        }
        return {"telemetry": Telemetry(**traces), "temperature": 4.0}

    metrics: dict[str, float] = {}
    step_of_trainer(tmp_path, TWO, metrics=metrics, fields=fields)
    with torch.no_grad():
        plain = {case[0]: float(value) for case, value in logprobs_of(two_tokens()[0], ONE).items()}
    divergence = sum(span[token] * (math.log(span[token]) - plain[token]) for token in (A, B))
    assert metrics["sampling/kl_recursed"] == pytest.approx(divergence, rel=1e-4)
    assert metrics["sampling/recursed_tokens"] == pytest.approx(1 / 1.5), "1.5 tokens a rollout, one recursed"


def test_a_loss_that_is_a_function_of_the_ratio_gets_it(tmp_path: Path) -> None:
    settings = {"loss_type": "vespo"}
    with_it = step_of_trainer(tmp_path, ONE, settings=settings)
    without = step_of_trainer(tmp_path, ONE, settings=settings, importance_sampling_mode="none")
    assert (with_it - without).norm() > 0.05 * without.norm()
