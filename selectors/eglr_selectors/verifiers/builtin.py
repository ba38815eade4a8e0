"""The verifiers that come with the library, registered without loading what they need."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from eglr_selectors.verifiers.registry import ScoreFunction, register_verifier

if TYPE_CHECKING:
    from eglr_selectors.verifiers.learned import LearnedVerifier
    from eglr_selectors.verifiers.process_reward_model import ProcessRewardModel
    from eglr_selectors.verifiers.reward_model import RewardModel


@register_verifier("callable")
def function(*, target: str) -> ScoreFunction:
    """Any Python function of a problem and its rollouts, named as ``module:function``."""
    module, _, name = str(target).partition(":")
    if not module or not name:
        raise ValueError(f"target={target!r}: expected module:function")
    return getattr(import_module(module), name)


@register_verifier("reward_model")
def reward_model(
    *,
    model: str,
    sigmoid: bool = False,
    batch_size: int = 8,
    device: str = "cpu",
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> RewardModel:
    """A transformers sequence-classification reward model with its own chat template."""
    from eglr_selectors.verifiers.reward_model import RewardModel

    return RewardModel.from_pretrained(
        model,
        sigmoid=sigmoid,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )


@register_verifier("process_reward_model")
def process_reward_model(
    *,
    model: str,
    convention: str = "qwen",
    aggregation: str = "min",
    batch_size: int = 8,
    device: str = "cpu",
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> ProcessRewardModel:
    """A model that scores every step of a solution: Qwen2.5-Math-PRM, Skywork or Math-Shepherd."""
    from eglr_selectors.verifiers.process_reward_model import ProcessRewardModel

    return ProcessRewardModel.from_pretrained(
        model,
        convention=convention,
        aggregation=aggregation,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )


@register_verifier("learned")
def learned(*, path: str, allow_fitted: bool = False) -> LearnedVerifier:
    """A classifier on telemetry and on what the pool agrees on, fitted by ``fit_verifier``."""
    from eglr_selectors.verifiers.learned import LearnedVerifier

    return LearnedVerifier.load(path, allow_fitted=allow_fitted)
