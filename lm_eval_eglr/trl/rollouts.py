"""The rollout function: pools of the model that is being trained, one for each group of equal prompts."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from accelerate.utils import gather_object
from eglr_selectors.pool import Cell, Rollout
from transformers import PreTrainedTokenizerBase

from lm_eval_eglr.decoding.pool_decoder import DEFAULT_ROWS, PoolDecoder, Prompt
from lm_eval_eglr.decoding.strategies import read_options
from lm_eval_eglr.decoding.strategies.grid import Items, grid_cells, parse_spans, parse_temperatures

UNUSED_SETTINGS = {
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "",
    "generation_kwargs": "",
}
"""Settings of GRPOConfig that a rollout function never sees, and the option here that does the same."""
UNCORRECTED = (
    "this trainer takes the pools for rollouts of the policy that it trains; "
    "PoolGRPOTrainer weighs them by the importance ratio"
)
ONLY_SPANS = "PoolRollouts draws from spans; training a recurrent-depth model on its grid is not supported"
EXTRA_FIELDS = ("cell", "span", "temperature", "truncated", "telemetry")
"""Fields that reward functions get beside TRL's own, one value per completion."""


@dataclass(frozen=True, slots=True)
class _Share:
    """The cells ``start:stop`` of one group, which this process decodes.

    Attributes:
        prompt: The group's prompt.
        start: First cell.
        stop: One past the last cell.
        occurrence: How many groups before it, on any process, have the same prompt.
    """

    prompt: Prompt
    start: int
    stop: int
    occurrence: int


class PoolRollouts:
    """TRL's ``rollout_func``: the L × T pool of each prompt is its group of rollouts.

    It decodes with the current weights of the trainer's model, adapters included, in eval mode, and leaves
    the model as it was. Draws depend on the seed, the step and the prompt alone: a run that is repeated
    has the same rollouts, also on another number of processes, and a resumed run goes on as it would have.

    Example:
        >>> rollouts = PoolRollouts(spans="0:2", temperatures="0.7x4")  # num_generations=8
        >>> trainer = PoolGRPOTrainer(..., rollout_func=rollouts)
    """

    def __init__(
        self,
        *,
        spans: Items | None = None,
        temperatures: Items | None = None,
        eval_spans: Items | None = None,
        eval_temperatures: Items | None = None,
        seed: int | None = None,
        max_rows: int = DEFAULT_ROWS,
        **options: Any,
    ) -> None:
        """Chooses the grid. Its number of cells must be the trainer's ``num_generations``.

        Args:
            spans: Spans L, as of :class:`PoolDecoder`.
            temperatures: Temperatures T, as of :class:`PoolDecoder`.
            eval_spans: Spans in evaluation, whose cells must be ``num_generations_eval``; by default the
                same.
            eval_temperatures: Temperatures in evaluation; by default the same.
            seed: Seed of all draws; by default that of the training arguments.
            max_rows: Rows decoded at once.
            **options: ``share``, ``cuda_graphs``, ``max_length``, and fields of :class:`RecursionConfig` and
                :class:`SamplingConfig`.

        Raises:
            ValueError: For an unknown option or a bad value.
        """
        for name in ("strategy", "trace"):
            if name in options:
                raise ValueError(f"{name}={options[name]!r}: PoolRollouts decodes the grid and traces it")
        if "recurrences" in options:
            raise ValueError(f"recurrences={options['recurrences']!r}: {ONLY_SPANS}")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ValueError(f"seed={seed!r}: expected an integer >= 0")
        constructor = ("max_length", "share", "cuda_graphs")
        read_options(
            "grid",
            {"spans": spans, "temperatures": temperatures}
            | {key: value for key, value in options.items() if key not in constructor},
        )
        self.spans, self.temperatures = spans, temperatures
        self.eval_spans = spans if eval_spans is None else eval_spans
        self.eval_temperatures = temperatures if eval_temperatures is None else eval_temperatures
        self.seed = seed
        self._options = {"max_rows": max_rows, **options}
        self._decoder: PoolDecoder | None = None
        self._model: Any = None
        self._calls: dict[str, tuple[int, int]] = {}  # by mode: the last step, and its calls until now

    def __call__(self, prompts: Sequence[Prompt], trainer: Any) -> dict[str, list[Any]]:
        """Decodes this process's completions.

        Args:
            prompts: One per completion, each group's ``num_generations`` in a row; a group may lie on
                several processes.
            trainer: The trainer, whose model, tokenizer, limits and step are read.

        Returns:
            ``prompt_ids``, ``completion_ids``, ``logprobs`` (nats, of the distribution drawn from: recursed,
            tempered, truncated), and :data:`EXTRA_FIELDS`.

        Raises:
            ValueError: If the grid has not ``num_generations`` cells, or a setting would be ignored.
        """
        decoder = self.bind(trainer)
        mode = "train" if trainer.model.training else "eval"
        cells = self.cells(trainer, mode)
        shares = _shares(prompts, len(cells), mode, trainer.accelerator.process_index)
        seed = self.seed if self.seed is not None else trainer.args.seed
        step = trainer.state.global_step
        last_step, calls = self._calls.get(mode, (step, 0))
        call = calls if step == last_step else 0
        self._calls[mode] = (step, call + 1)
        # Repetitions of a prompt are decoded by themselves: the draws of a call depend on its prompts alone.
        alike: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for place, share in enumerate(shares):
            alike[share.start, share.stop, share.occurrence].append(place)
        rollouts: dict[int, Sequence[Rollout]] = {}
        for (start, stop, occurrence), places in alike.items():
            with _own_forward(trainer.model):
                pools = decoder.generate(
                    [shares[place].prompt for place in places],
                    cells=cells[start:stop],
                    max_new_tokens=trainer.max_completion_length,
                    progress=False,
                    seed=mixed_seed(seed, mode, step, call, occurrence),
                )
            rollouts.update(zip(places, (pool.rollouts for pool in pools), strict=True))
        prompt_ids = [decoder.encode(share.prompt) for share in shares]
        return _columns([(prompt_ids[place], each) for place in sorted(rollouts) for each in rollouts[place]])

    def bind(self, trainer: Any) -> PoolDecoder:
        """Checks that it fits a trainer, and returns the decoder of the trainer's model.

        Raises:
            ValueError: If the grid has not ``num_generations`` cells, a setting would be ignored, or the
                model's weights lie on several processes.
        """
        model = trainer.model
        if self._decoder is None or self._model is not model:
            _refuse_unsupported(trainer)
            if getattr(trainer, "importance_sampling_mode", None) is None:
                warnings.warn(UNCORRECTED, stacklevel=2)
            tokenizer = trainer.processing_class
            with _own_forward(model):
                decoder = _TemplateDecoder(
                    model,
                    tokenizer,
                    spans=self.spans,
                    temperatures=self.temperatures,
                    trace=True,
                    **self._options,
                )
            if decoder.engine.axis.letter != "L":
                raise ValueError(f"model={type(model).__name__}: {ONLY_SPANS}")
            decoder.template_options = dict(trainer.chat_template_kwargs)
            self._decoder, self._model = decoder, model
            self.cells(trainer, "train")
            if trainer.eval_dataset is not None:
                self.cells(trainer, "eval")
        return self._decoder

    def cells(self, trainer: Any, mode: str) -> tuple[Cell, ...]:
        """The grid in ``train`` or ``eval`` mode.

        Raises:
            ValueError: If it has not as many cells as the trainer wants rollouts of a prompt.
        """
        assert self._decoder is not None
        evaluates = mode == "eval"
        depth = self._decoder.stack.depth
        spans = parse_spans(self.eval_spans if evaluates else self.spans, depth)
        temperatures = parse_temperatures(self.eval_temperatures if evaluates else self.temperatures)
        name = "num_generations_eval" if evaluates else "num_generations"
        wanted = getattr(trainer, name)
        if len(spans) * len(temperatures) != wanted:
            raise ValueError(
                f"{len(spans)} spans x {len(temperatures)} temperatures = {len(spans) * len(temperatures)} "
                f"cells, but {name}={wanted}: expected equal numbers"
            )
        return grid_cells(spans, temperatures)


class _TemplateDecoder(PoolDecoder):
    """A decoder that applies the chat template with the trainer's options, as TRL does."""

    template_options: dict[str, Any]

    def _encode(self, prompt: Prompt) -> tuple[str, list[int]]:
        if isinstance(prompt, str) or not self.template_options:
            return super()._encode(prompt)
        text = self.tokenizer.apply_chat_template(
            [dict(message) for message in prompt],
            tokenize=False,
            add_generation_prompt=True,
            **self.template_options,
        )
        assert isinstance(text, str)
        return text, list(self.tokenizer(text, add_special_tokens=False).input_ids)


def _refuse_unsupported(trainer: Any) -> None:
    """Raises ValueError for what a trainer was told and this rollout function would not do."""
    args = trainer.args
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    for name, option in UNUSED_SETTINGS.items():
        if getattr(args, name) != defaults[name]:
            instead = f"give PoolRollouts({option}=)" if option else "leave it at its default"
            raise ValueError(f"{name}={getattr(args, name)!r}: PoolRollouts does not read it; {instead}")
    for name in ("use_vllm", "use_transformers_continuous_batching"):
        if getattr(args, name):
            raise ValueError(f"{name}=True: expected False, the rollouts are those of PoolRollouts")
    if trainer.tools:
        raise ValueError("tools: PoolRollouts decodes single turns, without tools or environments")
    if not isinstance(trainer.processing_class, PreTrainedTokenizerBase):
        kind = type(trainer.processing_class).__name__
        raise ValueError(f"processing_class: expected a tokenizer, got {kind}")
    plugin = trainer.accelerator.state.deepspeed_plugin
    if trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3):
        raise ValueError("FSDP and DeepSpeed ZeRO-3 split the weights; PoolRollouts needs them whole")


@contextmanager
def _own_forward(model: Any) -> Iterator[None]:
    """Takes off what accelerate puts around the forward for mixed precision: its head would be rounded."""
    wrapped, own = vars(model).get("forward"), vars(model).get("_original_forward")
    if own is None:
        yield
        return
    model.forward = own
    try:
        yield
    finally:
        model.forward = wrapped


def mixed_seed(*parts: int | str) -> int:
    """A seed of 63 bits from a run's seed and where in the run it is used."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _shares(prompts: Sequence[Prompt], size: int, mode: str, process: int) -> list[_Share]:
    """Which cells of which groups this process decodes, in the order of its prompts."""
    lists = gather_object([list(prompts)])  # of every process: TRL deals the batch out in equal slices
    everyone = [prompt for each in lists for prompt in each]
    if len(everyone) % size:
        raise ValueError(f"{len(everyone)} prompts in {mode}: expected whole groups of {size}")
    seen: Counter[str] = Counter()
    occurrences = []
    for begin in range(0, len(everyone), size):
        members = everyone[begin : begin + size]
        if any(prompt != members[0] for prompt in members):
            raise ValueError(f"prompts in {mode}: expected each prompt {size} times in a row")
        occurrences.append(seen[repr(members[0])])
        seen[repr(members[0])] += 1
    first = process * len(prompts)
    shares = []
    position = first
    while position < first + len(prompts):
        group, start = divmod(position, size)
        stop = min(size, start + first + len(prompts) - position)
        shares.append(_Share(prompts[position - first], start, stop, occurrences[group]))
        position += stop - start
    return shares


def _columns(rollouts: Sequence[tuple[Sequence[int], Rollout]]) -> dict[str, list[Any]]:
    """What TRL takes, one entry per rollout."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for prompt_ids, rollout in rollouts:
        telemetry = rollout.telemetry
        if rollout.finish_reason == "error" or telemetry is None:
            raise RuntimeError(f"rollout {rollout.cell}: the model's logits are not finite")
        columns["prompt_ids"].append(list(prompt_ids))
        columns["completion_ids"].append(list(rollout.tokens))
        columns["logprobs"].append(list(telemetry.token_sampling_logprobs))
        extra = (rollout.cell, rollout.cell.span, rollout.cell.temperature, rollout.truncated, telemetry)
        for name, value in zip(EXTRA_FIELDS, extra, strict=True):
            columns[name].append(value)
    return dict(columns)
