"""GRPO with the importance ratio of the policy to the distribution that its rollouts were drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, get_args

import torch
from eglr_selectors import Telemetry
from torch import Tensor
from trl import GRPOTrainer

from lm_eval_eglr.trl.rollouts import PoolRollouts

Correction = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "none"]


class PoolGRPOTrainer(GRPOTrainer):
    """TRL's ``GRPOTrainer`` for rollouts that another distribution than the policy was drawn from.

    A rollout of a cell (L, T) is drawn from q, the recursed model at temperature T after truncation; the
    policy p that is trained is the plain model at the training arguments' temperature. TRL corrects for
    such a difference only where vLLM draws, so with any other ``rollout_func`` it takes q for p, and its
    gradient is that of another objective. This class multiplies the loss of each token by p/q, truncated
    (arXiv 1802.01561, section 4; TRL's own options for vLLM): through the advantages, which TRL lets have
    one value per token. q is what the rollout function returns as ``logprobs``; p is computed in eval mode,
    unless TRL has computed it already, where its rollouts serve several steps.

    With ``token_truncate`` a token's ratio is its own. That leaves out how often its prefix is met, and its
    variance does not grow with the length. ``sequence_truncate`` takes the product over the rollout:
    unbiased up to the truncation, and of little use where rollouts are long. A token that q never gives
    (a greedy cell's others, those that top_p removed) cannot be made up for by any weight.
    """

    def __init__(
        self,
        *args: Any,
        importance_sampling_mode: Correction = "token_truncate",
        importance_sampling_clip_max: float | None = 3.0,
        importance_sampling_clip_min: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes a ``GRPOTrainer``.

        Args:
            *args: As of ``GRPOTrainer``.
            importance_sampling_mode: ``*_truncate`` cuts ratios to the bounds, ``*_mask`` takes those outside
                for 0; of each token, or of each rollout as a whole. ``none`` does not correct.
            importance_sampling_clip_max: Largest ratio; ``None`` has no bound.
            importance_sampling_clip_min: Smallest ratio; ``None`` has no bound.
            **kwargs: As of ``GRPOTrainer``.

        Raises:
            ValueError: For a bad value, for an option that only vLLM would read, or if the rollout function
                does not fit the training arguments.
        """
        if importance_sampling_mode not in get_args(Correction):
            raise ValueError(
                f"importance_sampling_mode={importance_sampling_mode!r}: expected one of "
                + ", ".join(get_args(Correction))
            )
        low, high = importance_sampling_clip_min, importance_sampling_clip_max
        for name, value in (("min", low), ("max", high)):
            if value is not None and not (isinstance(value, (int, float)) and 0 <= value < math.inf):
                raise ValueError(
                    f"importance_sampling_clip_{name}={value!r}: expected a number >= 0, or None"
                )
        if low is not None and high is not None and low >= high:
            raise ValueError(
                f"importance_sampling_clip_min={low!r}: expected less than "
                f"importance_sampling_clip_max={high!r}"
            )
        super().__init__(*args, **kwargs)
        _refuse_options_of_vllm(self.args)
        self.importance_sampling_mode = importance_sampling_mode
        self.importance_sampling_bounds = (0.0 if low is None else low, math.inf if high is None else high)
        if isinstance(self.rollout_func, PoolRollouts):
            self.rollout_func.bind(self)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        # TRL writes the rollout function's extra fields into the rows, which may be one object several times.
        rows = [dict(row) for row in inputs]
        output = super()._generate_and_score_completions(rows)
        drawn_from = output.get("sampling_per_token_logps")
        if drawn_from is None:  # TRL drew the rollouts itself, from the policy
            return output
        mask = output["completion_mask"] * output.get("tool_mask", 1)
        policy = output.get("old_per_token_logps")
        if policy is None:
            policy = self._policy_logprobs(output)
        # A log-probability that is not known is NaN there, and is not corrected.
        differences = torch.nan_to_num((policy - drawn_from) * mask, nan=0.0)
        ratios, clipped = importance_ratios(
            differences, self.importance_sampling_mode, *self.importance_sampling_bounds
        )
        self._log_ratios(ratios, clipped, mask)
        self._log_recursion(rows, policy, mask)
        if self.importance_sampling_mode == "none":
            return output
        if self.loss_type == "vespo":  # its weights are a function of the ratio
            output["importance_sampling_ratio"] = ratios
        else:
            output["advantages"] = output["advantages"][:, None] * ratios
        return output

    @torch.no_grad()
    def _policy_logprobs(self, output: dict[str, Any]) -> Tensor:
        """ln p of the completions' tokens, ``[rollouts, tokens]``, without dropout, as they were drawn."""
        training = self.model.training
        self.model.eval()
        try:
            size = self.args.per_device_train_batch_size if training else self.args.per_device_eval_batch_size
            logprobs, _, _ = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
                torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
                output["completion_ids"].size(1),
                batch_size=size,
            )
        finally:
            self.model.train(training)
        return logprobs

    def _log_ratios(self, ratios: Tensor, clipped: Tensor, mask: Tensor) -> None:
        mask = mask.expand(len(mask), -1).bool()
        each = ratios.expand_as(mask)[mask]
        share = self._share(clipped.expand_as(mask)[mask].sum(), mask.sum())
        mean = self._share(each.sum(), mask.sum())
        extremes = torch.stack([each.min(), -each.max()]) if each.numel() else torch.zeros(2)
        low, high = self.accelerator.gather(extremes.to(mask.device)).view(-1, 2).amin(0).tolist()
        for name, value in (("min", low), ("mean", mean), ("max", -high)):
            self._log_mean(f"sampling/importance_sampling_ratio/{name}", value)
        self._log_mean("sampling/clipped_tokens", share)

    def _log_recursion(self, rows: Sequence[dict[str, Any]], policy: Tensor, mask: Tensor) -> None:
        """The share of recursed tokens, and how far the recursion moves their distributions from p_0.

        KL(p_L ‖ p_0) is estimated from the drawn tokens alone: the non-negative estimator
        (r − 1) − ln r with r = p_0/p_L, weighted by p_L/q because they were drawn from q. Greedy cells give
        no estimate.
        """
        found = [recursion_sums(row, line) for row, line in zip(rows, policy, strict=True)]
        recursed, tokens, divergence, sampled = torch.tensor(found, device=mask.device).sum(0)
        if self._share(tokens, torch.ones_like(tokens)):
            self._log_mean("sampling/recursed_tokens", self._share(recursed, tokens))
            if self.temperature == 1.0:  # else the policy is not p_0, but p_0 at that temperature
                self._log_mean("sampling/kl_recursed", self._share(divergence, sampled))

    def _share(self, part: Tensor, whole: Tensor) -> float:
        """A quotient of sums over all processes; NaN, which TRL leaves out of means, if there is nothing."""
        sums = self.accelerator.reduce(torch.stack([part.double(), whole.double()]), reduction="sum")
        return (sums[0] / sums[1]).item() if sums[1] else math.nan

    def _log_mean(self, name: str, value: float) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(value)


def _refuse_options_of_vllm(args: Any) -> None:
    if args.use_vllm:
        raise ValueError("use_vllm=True: TRL corrects for vLLM itself; use its GRPOTrainer")
    for field in fields(args):
        name, value = field.name, getattr(args, field.name)
        if name.startswith("vllm_importance_sampling_") and value != field.default:
            here = name.removeprefix("vllm_")
            raise ValueError(f"{name}={value!r}: only vLLM would read it; give PoolGRPOTrainer({here}=)")


def importance_ratios(
    differences: Tensor, mode: Correction, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """Importance ratios from ln p − ln q, and which of them were clipped.

    Args:
        differences: ln p − ln q of each token, 0 where there is none, ``[rollouts, tokens]``.
        mode: See :class:`PoolGRPOTrainer`.
        low: Smallest ratio.
        high: Largest ratio.

    Returns:
        Both ``[rollouts, tokens]``, or ``[rollouts, 1]`` where a rollout has one ratio.
    """
    ratios = (differences.sum(-1, keepdim=True) if mode.startswith("sequence") else differences).exp()
    outside = (ratios < low) | (ratios > high)
    if mode == "none":
        return ratios, torch.zeros_like(outside)
    bounded = ratios.masked_fill(outside, 0.0) if mode.endswith("mask") else ratios.clamp(low, high)
    return bounded, outside


def recursion_sums(row: Mapping[str, Any], policy: Tensor) -> tuple[float, float, float, float]:
    """What the metrics of the recursion are made of, for one rollout; zeros where nothing is known of it.

    Args:
        row: A rollout's fields, with the ``telemetry`` and the ``temperature`` of :class:`PoolRollouts`.
        policy: ln p_0 of the rollout's tokens, ``[tokens or more]``.

    Returns:
        Recursed tokens, tokens, the sum of the estimates of KL(p_L ‖ p_0), and of how many tokens.
    """
    telemetry = row.get("telemetry")
    if not isinstance(telemetry, Telemetry):
        return 0.0, 0.0, 0.0, 0.0
    iterations = telemetry.token_iterations
    sampled = [i for i, count in enumerate(iterations) if count and row["temperature"]]
    divergence = 0.0
    for i in sampled:
        p_span, drawn = telemetry.token_logprobs[i], telemetry.token_sampling_logprobs[i]
        log_ratio = float(policy[i]) - p_span
        divergence += math.exp(p_span - drawn) * (math.expm1(log_ratio) - log_ratio)
    recursed = sum(count > 0 for count in iterations)
    return float(recursed), float(len(iterations)), divergence, float(len(sampled))
