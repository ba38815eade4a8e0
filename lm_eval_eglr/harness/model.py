"""The model class ``hf-eglr``: lm_eval's HFLM whose generation decodes pools of rollouts."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from eglr_selectors import Cell, ParsedPool, Rollout, RolloutPool, get_selector, parse_pool
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from lm_eval_eglr.calibration import measured_gate_rate
from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.budget import Key
from lm_eval_eglr.decoding.grid import Items
from lm_eval_eglr.decoding.memory import rows_that_fit
from lm_eval_eglr.decoding.pool_decoder import (
    RECURSION_OPTIONS,
    SAMPLING_OPTIONS,
    DocumentKeys,
    read_options,
)
from lm_eval_eglr.decoding.rounds import Assignment
from lm_eval_eglr.decoding.rows import Request
from lm_eval_eglr.decoding.stopping import StopRule
from lm_eval_eglr.decoding.strategies.courses import FixedCourse
from lm_eval_eglr.decoding.strategies.options import STRATEGY_OPTIONS
from lm_eval_eglr.harness.fingerprint import manifest_of
from lm_eval_eglr.harness.instances import PoolRequest, PoolResponse, keys_of
from lm_eval_eglr.harness.model_arguments import refuse_unknown
from lm_eval_eglr.harness.processes import budget_group_digests, duplicate_requests, gather, with_all_metrics
from lm_eval_eglr.harness.recording import Recording, recording
from lm_eval_eglr.paths import resolve
from lm_eval_eglr.store import Manifest, StoreWriter

logger = logging.getLogger(__name__)

OWN_OPTIONS = (
    *("strategy", *STRATEGY_OPTIONS, "rollouts", "trace", "selector", "cuda_graphs"),
    *RECURSION_OPTIONS,
    *SAMPLING_OPTIONS,
)
GREEDY = Cell(span=0, temperature=0.0, sample=0)
# Tasks that know nothing of pools have their answers anywhere, so a selector looks everywhere.
FALLBACKS = ("hash", "phrase", "last_number")
DRAW_OPTIONS = ("top_p", "top_k", "min_p")
GENERATION_OPTIONS = ("do_sample", "temperature", *DRAW_OPTIONS, "until", "max_gen_toks")
OPEN_GATE = 0.5  # share of gated tokens from which on the threshold is said not to fit
# Settings of a generation config that change greedy text and that the engine does not know.
UNAPPLIED = (
    "repetition_penalty",
    "encoder_repetition_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "sequence_bias",
    "suppress_tokens",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "min_length",
    "min_new_tokens",
    "guidance_scale",
    "num_beams",
)
NEUTRAL: tuple[Any, ...] = (None, 0, 1, [], {})


class EGLRLM(HFLM):
    """HFLM whose ``generate_until`` decodes pools with entropy-gated latent recursion.

    Every HFLM argument keeps its meaning and loglikelihood tasks run as with ``--model hf``. A task of
    this project gets the whole pool of each problem, by default its L × T grid; any other task gets one
    text, by default that of plain greedy decoding, which is what ``--model hf`` gives.
    """

    def __init__(
        self,
        pretrained: Any,
        strategy: str = "grid",
        spans: Items | None = None,
        temperatures: Items | None = None,
        rollouts: str | None = None,
        trace: bool = False,
        selector: str = "greedy",
        cuda_graphs: bool = True,
        **kwargs: Any,
    ) -> None:
        """Checks the options, then loads the model, then checks what depends on it.

        Args:
            pretrained: Model name, folder, or a loaded model; ``demo`` is the model that ships with the
                package, a demonstration and a test fixture.
            strategy: Which rollouts a problem gets: ``grid``, ``sample``, ``eager`` or ``adaptive_grid``;
                each has options of its own, see docs/strategies.md.
            spans: Spans L, layers: ``0:2:4``, a list, or shares of the depth such as ``0:25%``. Below 16
                layers the default is ``0:12.5%:25%:50%``.
            temperatures: Temperatures: ``0:0.7``, a list, or repetitions such as ``0.7x3``, three samples.
            rollouts: Folder of the store that gets every rollout, and from which a stopped run continues.
            trace: Whether the store also gets entropy, log-probability and iterations of every token.
            selector: Whose text a task gets that knows nothing of pools. ``greedy`` decodes one rollout;
                any other decodes the pool.
            cuda_graphs: Whether decode steps are captured, where the model lies on one CUDA device.
            **kwargs: The strategy's other options, fields of RecursionConfig and SamplingConfig, and
                everything that HFLM takes.

        Raises:
            ValueError: For an unknown option or a bad value.
        """
        names = (*STRATEGY_OPTIONS, *RECURSION_OPTIONS, *SAMPLING_OPTIONS)
        own = {key: kwargs.pop(key) for key in names if key in kwargs}
        refuse_unknown(kwargs, OWN_OPTIONS, inspect.signature(HFLM.__init__).parameters)
        read_options(strategy, {"spans": spans, "temperatures": temperatures, **own})
        for option, value in (("trace", trace), ("cuda_graphs", cuda_graphs)):
            if not isinstance(value, bool):
                raise ValueError(f"{option}={value!r}: expected True or False")
        if kwargs.get("tp_plan") is not None:
            # lm_eval then runs every document on every process, which no store of ours would survive.
            raise ValueError(
                f"tp_plan={kwargs['tp_plan']!r}: expected none; hf-eglr splits a model by parallelize=True"
            )
        self._selector = get_selector(selector)
        rank = int(os.environ.get("RANK", 0))
        self._store = None if rollouts is None else StoreWriter(Path(rollouts), rank)
        revision = kwargs.get("revision")
        # HFLM's own default is "cuda", also where there is none.
        kwargs.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
        super().__init__(resolve(pretrained), **kwargs)
        accelerator = getattr(self, "accelerator", None)
        if accelerator is not None:
            # HFLM splits the documents only over several GPUs, and by their number within one host.
            self._rank, self._world_size = accelerator.process_index, accelerator.num_processes
        if self.backend != "causal":
            raise ValueError(
                f"pretrained={pretrained!r}: an encoder-decoder model; hf-eglr takes decoder-only models"
            )
        self._decoder = PoolDecoder(
            self.model.get_base_model() if self.peft else self.model,
            self.tokenizer,
            strategy=strategy,
            spans=spans,
            temperatures=temperatures,
            max_length=self.max_length,
            trace=trace,
            cuda_graphs=cuda_graphs,
            **own,
        )
        name = pretrained if isinstance(pretrained, str) else str(self.model.config._name_or_path)
        self._manifest = (
            Manifest() if self._store is None else manifest_of(self._decoder, self.model, name, revision)
        )
        generation = self.model.generation_config
        self._unapplied = [name for name in UNAPPLIED if getattr(generation, name, None) not in NEUTRAL]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers each request with a :class:`PoolResponse`: the selected text, with its pool.

        Raises:
            ValueError: If a request for a pool has generation options that the engine does not know, or
                the store is of another run.
        """
        borrowed = duplicate_requests(requests)
        if borrowed:
            kept = [request for number, request in enumerate(requests) if number not in borrowed]
            texts = iter(self.generate_until(kept, disable_tqdm))
            answers: list[str] = []
            for number in range(len(requests)):
                if number not in borrowed:
                    answers.append(next(texts))
                else:
                    source = borrowed[number]
                    answers.append(PoolResponse() if source is None else answers[source])
            return answers
        theirs = {number for number, request in enumerate(requests) if self._is_left_to_hflm(request)}
        documents = DocumentKeys()
        plans = {
            number: self._plan(request, documents)
            for number, request in enumerate(requests)
            if number not in theirs
        }
        keys = keys_of(requests)
        shares = self._decoder.course.budget != "none"
        pooled = {n: plan for n, plan in plans.items() if self._wants_pool(requests[n])}
        sharing = budget_group_digests(pooled, keys) if shares else {}
        with recording(
            self._store, self._manifest, requests, plans, FALLBACKS, self._pieces, sharing
        ) as record:
            pools = dict(record.served)
            missing = sorted(theirs - pools.keys())
            if missing:
                texts = super().generate_until([requests[number] for number in missing], disable_tqdm)
                for number, text in zip(missing, texts, strict=True):
                    pools[number] = RolloutPool((Rollout(text, GREEDY),), requests[number].args[0])
                    record.keep(number, pools[number])
            assignments = {
                number: self._assignment(requests[number], plan, keys[number])
                for number, plan in plans.items()
            }
            responses = self._decode(assignments, requests, record, disable_tqdm)
        for number, pool in pools.items():
            text = self._text(plans[number], pool) if number in plans else pool[0].text
            responses[number] = PoolResponse.of(text, pool)
        return [responses[number] for number in range(len(requests))]

    def gather_object(self, obj: Any, dst: int = 0) -> Any:
        """As HFLM; where lm_eval gathers metrics, every process has all of them, if only empty."""
        gathered = super().gather_object(obj, dst)
        return gathered and with_all_metrics(gathered)

    def _decode(
        self,
        assignments: dict[int, Assignment],
        requests: list[Instance],
        record: Recording,
        disable_tqdm: bool,
    ) -> dict[int, PoolResponse]:
        served = {number: pool for number, pool in record.served.items() if number in assignments}
        rest = {number: each for number, each in assignments.items() if number not in served}
        plans = {number: each.request for number, each in rest.items()}
        if self._unapplied and plans:
            logger.warning(
                "the model's generation config sets %s, which pools are decoded without",
                ", ".join(self._unapplied),
            )
        self._warn_cut(plans, requests)
        self._decoder.engine.max_rows = self._rows(list(rest.values()))
        responses = {}
        failed: dict[int, int] = {}
        rounds = self._decoder.rounds(
            assignments=rest.values(),
            progress=not disable_tqdm and self.rank == 0,
            keep=record.keep_round,
            gather=gather,
        )
        for number, pool in rounds.run(assignments, served, record.kept):
            record.keep(number, pool)
            broken = sum(rollout.finish_reason == "error" for rollout in pool)
            if broken:
                failed[number] = broken
            responses[number] = PoolResponse.of(self._text(plans[number], pool), pool)
            self.cache_hook.add_partial("generate_until", requests[number].args, responses[number])
        if failed:
            logger.warning(
                "%d rollouts of %d documents ended early because the model gave logits that are not finite "
                "(first: document %s); they are marked finish_reason=error, the others are unaffected",
                sum(failed.values()),
                len(failed),
                requests[min(failed)].doc_id,
            )
        self._warn_of_open_gate(response.pool for response in responses.values())
        return responses

    def _pieces(self) -> list[str]:
        """The text of each token id, for pages that show tokens."""
        pieces: list[str] = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
        return pieces

    def _wants_pool(self, request: Instance) -> bool:
        return isinstance(request, PoolRequest) or self._selector.name != "greedy"

    def _is_left_to_hflm(self, request: Instance) -> bool:
        """Whether a request needs one text under settings that only transformers' own generate knows."""
        if self._wants_pool(request):
            return False
        return bool(self._unapplied) or any(
            key not in GENERATION_OPTIONS for key in normalize_gen_kwargs(request.args[1], self.max_gen_toks)
        )

    def _plan(self, request: Instance, documents: DocumentKeys) -> Request:
        """Turns lm_eval's request into the engine's; the prompt is cut on the left as HFLM does."""
        context, gen_kwargs = request.args
        options = normalize_gen_kwargs(gen_kwargs, self.max_gen_toks)
        for key, value in options.items():
            if key not in GENERATION_OPTIONS:
                allowed = ", ".join(GENERATION_OPTIONS)
                raise ValueError(f"generation_kwargs {key}={value!r}: expected one of {allowed}")
        if self._wants_pool(request):
            cells = self._decoder.cells
            for key in ("temperature", *DRAW_OPTIONS):
                if options.get(key):
                    raise ValueError(
                        f"generation_kwargs {key}={options[key]!r}: a pool has its own; "
                        f"set it in --model_args ({'temperatures' if key == 'temperature' else key}=...)"
                    )
        else:
            default = 1.0 if options["do_sample"] else 0.0  # as transformers has it
            cells = (dataclasses.replace(GREEDY, temperature=float(options.get("temperature", default))),)
        drawing = {key: options[key] for key in DRAW_OPTIONS if key in options}
        tokens = self.tok_encode(context)
        if not tokens and self.prefix_token_id is not None:
            tokens = [self.prefix_token_id]  # what HFLM begins an empty context with
        limit = self._limit(int(options["max_gen_toks"]))
        tokens = tokens[-(self.max_length - limit) :]
        return self._decoder.request(
            tokens,
            cells,
            limit,
            StopRule(
                tuple(handle_stop_sequences(list(options["until"]), eos=self._eos)),
                self.think_end_token if isinstance(self.think_end_token, str) else None,
            ),
            documents.key(tokens, str(request.doc_id)),
            context,
            dataclasses.replace(self._decoder.sampling, **drawing),
        )

    def _assignment(self, request: Instance, plan: Request, key: Key) -> Assignment:
        """What the decoder is to do for a request.

        Raises:
            ValueError: If the budget is shared by labels and the request has no reference.
        """
        if not self._wants_pool(request):
            return Assignment(plan, FixedCourse(plan.cells), key)
        course = self._decoder.course
        if course.budget == "labels" and (not isinstance(request, PoolRequest) or request.reference is None):
            raise ValueError(
                f"budget='labels': document {request.doc_id} of {request.task_name} has no reference; "
                "use budget=free"
            )

        def read(pool: RolloutPool) -> ParsedPool:
            if not isinstance(request, PoolRequest):
                return parse_pool(pool, fallbacks=FALLBACKS)
            return parse_pool(pool, request.reference, request.rules, request.fallbacks)

        return Assignment(plan, course, key, read)

    def _limit(self, max_gen_toks: int) -> int:
        """The length limit, at most half of a context that has no room for all of it."""
        return max_gen_toks if max_gen_toks < self.max_length else self.max_length // 2

    @property
    def _eos(self) -> str | None:
        eos = self.eot_token_id
        return None if eos is None else self.tok_decode(eos, skip_special_tokens=False)

    def _warn_cut(self, plans: dict[int, Request], requests: list[Instance]) -> None:
        """Says how many prompts lost their beginning; HFLM says it per batch."""
        cut = [n for n, plan in plans.items() if len(plan.tokens) == self.max_length - plan.max_new_tokens]
        lost = [n for n in cut if len(self.tok_encode(requests[n].args[0])) > len(plans[n].tokens)]
        if lost:
            logger.warning(
                "%d of %d prompts were cut on the left to fit a context of %d tokens with max_gen_toks "
                "(first: document %s)",
                len(lost),
                len(plans),
                self.max_length,
                requests[lost[0]].doc_id,
            )

    def _warn_of_open_gate(self, pools: Iterable[RolloutPool | None]) -> None:
        """Says if most tokens were recursed: then the threshold, which is in nats, does not fit the model."""
        rate = measured_gate_rate(pools)
        if rate > OPEN_GATE and self.rank == 0:
            logger.warning(
                "the gate was open at %.0f%% of the tokens (entropy_threshold=%g), which is costly and may "
                "do harm; eglr calibrate --model NAME --gate-rate 0.2 finds a value for this model",
                100 * rate,
                self._decoder.engine.recursion.entropy_threshold,
            )

    def _rows(self, assignments: list[Assignment]) -> int:
        """``batch_size`` as a number of live rows; a pool's cells are always decoded together."""
        cells = max((each.course.rows for each in assignments), default=1)
        plans = [each.request for each in assignments]
        if str(self.batch_size).startswith("auto"):
            longest = max((len(plan.tokens) + plan.max_new_tokens for plan in plans), default=1)
            return max(cells, rows_that_fit(self.model, longest))
        return max(cells, int(self.batch_size))

    def _text(self, plan: Request, pool: RolloutPool) -> str:
        """The selected rollout's text as HFLM would give it: without its thinking part."""
        # Reading the answers of a pool is work for the grader, and one rollout needs no choice.
        index = self._selector(parse_pool(pool, fallbacks=FALLBACKS)).index if len(pool) > 1 else 0
        rollout = pool[index or 0]
        text, end = rollout.text, self.think_end_token
        if isinstance(end, int) and end in rollout.tokens:
            last = len(rollout.tokens) - rollout.tokens[::-1].index(end)
            text = self.tok_decode(list(rollout.tokens[last:])).lstrip()
        marker = end if isinstance(end, str) else None
        return postprocess_generated_text(text, list(plan.stop.strings), marker)
