"""The Python interface: prompts in, pools of rollouts out."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from eglr_selectors import Rules, parse_pool
from eglr_selectors.grading import DEFAULT
from eglr_selectors.options import check_range
from eglr_selectors.pool import Cell, Rollout, RolloutPool
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lm_eval_eglr.decoding.config import SamplingConfig
from lm_eval_eglr.decoding.depth import DepthAxis
from lm_eval_eglr.decoding.engine import Engine
from lm_eval_eglr.decoding.model.compiled_layers import Backend
from lm_eval_eglr.decoding.request import DocumentKeys, Request
from lm_eval_eglr.decoding.scheduler import Poll
from lm_eval_eglr.decoding.stopping import StopRule
from lm_eval_eglr.decoding.strategies import (
    CONSTRUCTOR_OPTIONS,
    STRATEGIES,
    DecodingPlan,
    read_options,
)
from lm_eval_eglr.decoding.strategies.grid import FixedPlan, Items
from lm_eval_eglr.decoding.strategies.rounds import Gather, PromptJob, Rounds
from lm_eval_eglr.decoding.teacher_forcing import layered
from lm_eval_eglr.paths import resolve
from lm_eval_eglr.progress import decoding_bar
from lm_eval_eglr.recurrent import demo_student  # noqa: F401  so that transformers knows demo-recurrent
from lm_eval_eglr.recurrent.decodable import recurrent

DEFAULT_ROWS = 64

Prompt = str | Sequence[Mapping[str, str]]


class PoolDecoder:
    """Decodes the L × T pool of each prompt with a frozen causal LM.

    Example:
        >>> decoder = PoolDecoder.from_pretrained("Qwen/Qwen2.5-0.5B-Instruct", spans="0:2:4")
        >>> pools = decoder.generate(["What is 17 * 23?"], max_new_tokens=64)
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        strategy: str = "grid",
        spans: Items | None = None,
        temperatures: Items | None = None,
        max_rows: int = DEFAULT_ROWS,
        max_length: int | None = None,
        share: bool = True,
        trace: bool = False,
        cuda_graphs: bool = True,
        compile_layers: bool | Backend = False,
        **options: Any,
    ) -> None:
        """Wraps a loaded model.

        Args:
            model: A decoder-only causal LM of transformers. It may be wrapped by PEFT or for training on
                several devices, in training mode, and its weights may change between calls: each call decodes
                with the weights and in the mode of evaluation, and leaves the model as it was.
            tokenizer: Its tokenizer.
            strategy: ``grid``, ``sample``, ``eager`` or ``adaptive_grid``, see docs/strategies.md.
            spans: Spans L, layers: ``"0:2:4:8"``, a list, or shares of the depth such as ``"25%"``. A
                recurrent-depth model takes ``recurrences`` instead, ``"4:8:16:32"``, its own by default.
            temperatures: Temperatures: ``"0:0.7x3"`` or a list.
            max_rows: Rows decoded at once; never fewer than the cells of one pool.
            max_length: Context length, tokens; by default the model's.
            share: Whether cells with equal prefixes are computed once. Changes no rollout.
            trace: Whether telemetry keeps its per-token values.
            cuda_graphs: Whether decode steps are captured, where the model lies on one CUDA device.
            compile_layers: Whether the decoder layers run through torch.compile, which takes a minute or more
                at start; or a backend of torch.compile, a function.
            **options: The strategy's options, and fields of :class:`RecursionConfig` (or, for a
                recurrent-depth model, :class:`RecurrentConfig`) and :class:`SamplingConfig`.

        Raises:
            ValueError: For an unknown option or a bad value; the message names what is allowed.
            UnsupportedModelError: If the model cannot be decoded.
        """
        read = read_options(strategy, {"spans": spans, "temperatures": temperatures, **options})
        check_range("max_rows", max_rows, 1, integer=True)
        if max_length is not None:
            check_range("max_length", max_length, 1, integer=True)
        model = _unwrapped(model)
        if not isinstance(compile_layers, bool) and not callable(compile_layers):
            raise ValueError(f"compile_layers={compile_layers!r}: expected True or False, or a function")
        recurs = recurrent(model, read.recurrent)
        if recurs is not None and compile_layers:
            raise ValueError(
                f"compile_layers=True: not for {type(model).__name__}, a recurrent-depth model; leave it out"
            )
        decodable = recurs or layered(model, read.recursion, cuda_graphs, compile_layers)
        read.check_axis(decodable.axis)
        self.stack, self.strategy, self.sampling = decodable.stack, read.strategy, read.sampling
        self.tokenizer = tokenizer
        self.max_length = decodable.positions if max_length is None else max_length
        self.engine = Engine(
            decodable,
            tokenizer,
            max_rows=max_rows,
            end_tokens=eos_token_ids(model, tokenizer),
            share=share,
            trace=trace,
        )
        self.plan: DecodingPlan = self.strategy.on(decodable.axis, self.engine.costs)
        read.recurrent.check_drafts(max(cell.depth for cell in self.plan.cells))
        self.engine.max_rows = max(max_rows, self.plan.rows)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that a pool may have, but for those that branch from them."""
        return self.plan.cells

    @property
    def draft_acceptance(self) -> float:
        """Share of the drafted tokens that were drawn, over all calls; NaN where nothing was drafted."""
        drafted, accepted = (getattr(self.stack, name, 0) for name in ("drafted", "accepted"))
        return accepted / drafted if drafted else math.nan

    @classmethod
    def from_pretrained(
        cls, name: str, *, model_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> PoolDecoder:
        """Loads a model and its tokenizer with transformers, then as the constructor.

        Args:
            name: Hub name or folder; ``demo`` and ``demo-recurrent`` are the small models that ship with the
                package, demonstrations and test fixtures.
            model_kwargs: For ``AutoModelForCausalLM.from_pretrained``, such as ``dtype``, ``device_map``,
                ``revision``, ``gguf_file`` or ``trust_remote_code``; the last three also go to the
                tokenizer.
            **options: As of the constructor.
        """
        checked = {key: value for key, value in options.items() if key not in CONSTRUCTOR_OPTIONS}
        read_options(options.get("strategy", "grid"), checked)
        kwargs = dict(model_kwargs or {})
        for_both = ("revision", "gguf_file", "subfolder", "trust_remote_code")
        shared = {key: kwargs[key] for key in for_both if key in kwargs}
        source = resolve(name)
        tokenizer = AutoTokenizer.from_pretrained(source, **shared)
        model = AutoModelForCausalLM.from_pretrained(source, **kwargs).eval()
        return cls(model, tokenizer, **options)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        max_new_tokens: int = 512,
        until: Sequence[str] = (),
        cells: Sequence[Cell] | None = None,
        references: Sequence[str | None] | None = None,
        rules: Rules = DEFAULT,
        fallbacks: Sequence[str] = (),
        progress: bool = True,
        seed: int | None = None,
    ) -> list[RolloutPool]:
        """Decodes one pool per prompt.

        Args:
            prompts: Texts, taken as they are, or lists of chat messages, to which the tokenizer's chat
                template is applied.
            max_new_tokens: Length limit of a rollout, tokens; less where the context ends before.
            until: Stop strings; the text ends before them.
            cells: Grid cells to decode instead of the whole grid; only with the strategy ``grid``.
            references: One reference answer per prompt; only ``budget="labels"`` looks at them.
            rules: When two answers are equal, for strategies that read answers.
            fallbacks: Where else they look for an answer.
            progress: Whether to show a progress bar.
            seed: Of the draws of this call; by default the constructor's. The same seed gives the same
                rollouts of the same prompts as long as the weights are the same.

        Returns:
            The pools in the order of the prompts.

        Raises:
            ValueError: If a prompt is empty or fills the context, or there is not one reference per prompt
                where they are needed.
        """
        if cells is not None and STRATEGIES["grid"] is not type(self.strategy):
            raise ValueError("cells: only strategy='grid' decodes given cells")
        if cells is not None:
            _check_cells(cells, self.engine.axis)
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], Mapping)):
            prompts = cast("Sequence[Prompt]", [prompts])
        if isinstance(until, str):
            until = (until,)
        stop = StopRule(tuple(until))
        plan: DecodingPlan = self.plan if cells is None else FixedPlan(tuple(cells))
        golds = [None] * len(prompts) if references is None else list(references)
        if len(golds) != len(prompts):
            raise ValueError(f"references: {len(golds)} for {len(prompts)} prompts")
        if plan.budget == "labels" and None in golds:
            raise ValueError("budget='labels': expected a reference for every prompt")
        sampling = self.sampling if seed is None else dataclasses.replace(self.sampling, seed=seed)
        documents = DocumentKeys()
        assignments = {}
        for number, (prompt, gold) in enumerate(zip(prompts, golds, strict=True)):
            text, tokens = self._encode(cast("Prompt", prompt))
            assignments[number] = PromptJob(
                self.request(tokens, plan.cells, max_new_tokens, stop, documents.key(tokens), text, sampling),
                plan,
                ("", number, 0),
                functools.partial(parse_pool, reference=gold, rules=rules, fallbacks=tuple(fallbacks)),
            )
        pools = dict(self.rounds(progress=progress, assignments=assignments.values()).run(assignments))
        return [pools[number] for number in range(len(assignments))]

    def rounds(
        self,
        *,
        assignments: Iterable[PromptJob] = (),
        progress: bool = False,
        keep: Callable[[int, RolloutPool], None] = lambda number, pool: None,
        gather: Gather = lambda accounts: accounts,
    ) -> Rounds:
        """Prepares decoding by the strategy.

        Args:
            assignments: What will be decoded, for the bar.
            progress: Whether to show a bar of rollouts and tokens.
            keep: See :class:`Rounds`.
            gather: See :class:`Rounds`.
        """
        assignments = list(assignments)
        plans = [assignment.plan for assignment in assignments]
        to_come = [assignment.request for assignment in assignments]
        known = all(isinstance(plan, FixedPlan) for plan in plans)
        total = sum(len(plan.cells) for plan in plans) if known else None
        return Rounds(
            lambda requests: self.decode(requests, progress=progress, rollouts=total, to_come=to_come),
            self.engine.costs,
            own=None if self.plan.budget == "none" else self.plan.own,
            trace=self.engine.trace,
            keep=keep,
            gather=gather,
            release=self.engine.prompts.release,
        )

    def logprobs(self, prompt: Prompt, rollout: Rollout) -> list[float]:
        """Recomputes ln p_L of each of a rollout's tokens at temperature 1, nats, by teacher forcing.

        Raises:
            ValueError: If the rollout has no token ids.
        """
        if not rollout.tokens:
            raise ValueError("rollout: expected token ids, got a rollout of text alone")
        _, tokens = self._encode(prompt)
        if rollout.cell.axis != self.engine.axis.letter:
            raise ValueError(f"rollout: its cell {rollout.cell} is of another depth axis than the model")
        _check_level("rollout", rollout.cell, self.engine.axis)
        return self.engine.token_logprobs(tokens, rollout.tokens, rollout.cell.span)

    def request(
        self,
        tokens: Sequence[int],
        cells: Sequence[Cell],
        max_new_tokens: int,
        stop: StopRule,
        document: str,
        prompt: str = "",
        sampling: SamplingConfig | None = None,
    ) -> Request:
        """Makes a checked request, its length limit cut to the context; ``sampling`` replaces the default.

        Raises:
            ValueError: If the prompt is empty or fills the context, or the limit is below 1.
        """
        if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens!r}: expected an integer >= 1")
        if not tokens:
            raise ValueError("prompt: expected at least one token, got an empty prompt")
        if self.max_length is not None:
            if len(tokens) >= self.max_length:
                raise ValueError(
                    f"prompt: {len(tokens)} tokens leave no room in the context of {self.max_length} tokens"
                )
            max_new_tokens = min(max_new_tokens, self.max_length - len(tokens))
        return Request(
            tuple(tokens), tuple(cells), max_new_tokens, stop, sampling or self.sampling, document, prompt
        )

    def decode(
        self,
        requests: Iterable[Request] | Poll,
        *,
        progress: bool = False,
        rollouts: int | None = None,
        to_come: Sequence[Request] = (),
    ) -> Iterator[tuple[int, RolloutPool]]:
        """Decodes requests as room is made; yields pools with their request's number as they finish.

        Args:
            requests: May be a generator; it is read only as far as there is room. Or a function that returns
                the next one, or ``None`` as long as there is none.
            progress: Whether to show a bar of tokens and rollouts, if the standard error is a terminal.
            rollouts: Total number of rollouts, for the bar.
            to_come: What is known of the requests: room for the longest is made at once, and the bar's first
                guess is that rollouts are as long as they may be.
        """
        limit = sum(request.max_new_tokens for request in to_come) / max(1, len(to_come))
        with decoding_bar(show=progress, rollouts=rollouts, limit=limit) as bar:
            yield from bar.watch(self.engine.run(requests, bar.advance, to_come))

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt, as :meth:`generate` decodes it: a text or chat messages."""
        return self._encode(prompt)[1]

    def _encode(self, prompt: Prompt) -> tuple[str, list[int]]:
        if isinstance(prompt, str):
            text, special = prompt, True
        else:
            messages = [dict(message) for message in prompt]
            text = cast(
                "str",
                self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
            )
            special = False  # the template has written them
        return text, list(self.tokenizer(text, add_special_tokens=special).input_ids)


def _unwrapped(model: Any) -> PreTrainedModel:
    """The model of transformers inside of wrappers of PEFT, torch and accelerate; adapters stay active."""
    while not isinstance(model, PreTrainedModel):
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if inner is None and hasattr(model, "get_base_model"):
            inner = model.get_base_model()
        if inner is None:
            raise ValueError(f"model={type(model).__name__}: expected a causal LM of transformers")
        model = inner
    return model


def _check_cells(cells: Sequence[Cell], axis: DepthAxis) -> None:
    """Refuses cells that the model has not."""
    if not cells:
        raise ValueError("cells=[]: expected at least one")
    for cell in cells:
        if cell.axis != axis.letter:
            raise ValueError(f"cells: {cell} is not on the model's depth axis; expected {axis.letter}")
        if cell.temperature is None:
            raise ValueError(f"cells: {cell} has no temperature; expected a number >= 0")
        _check_level("cells", cell, axis)


def _check_level(name: str, cell: Cell, axis: DepthAxis) -> None:
    if axis.deepest is not None and cell.depth > axis.deepest:
        raise ValueError(f"{name}: {cell} is deeper than the model, which has {axis.deepest} layers")


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """End-of-sequence tokens of the generation config and of the tokenizer."""
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)
