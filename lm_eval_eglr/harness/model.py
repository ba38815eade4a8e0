"""The model class ``hf-eglr``: lm_eval's HFLM whose generation decodes pools of rollouts."""

from __future__ import annotations

import inspect
import logging
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from eglr_selectors import Rollout, RolloutPool, get_selector, parse_pool
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import postprocess_generated_text
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
)

from lm_eval_eglr.calibration import measured_gate_rate
from lm_eval_eglr.decoding import PoolDecoder, RecursionConfig
from lm_eval_eglr.decoding.request import Request
from lm_eval_eglr.decoding.strategies import read_options
from lm_eval_eglr.decoding.strategies.grid import Items
from lm_eval_eglr.decoding.strategies.rounds import PromptJob
from lm_eval_eglr.harness.fingerprint import manifest_of
from lm_eval_eglr.harness.instances import FALLBACKS, PoolResponse, keys_of
from lm_eval_eglr.harness.model_arguments import (
    DECODING_OPTIONS,
    NEUTRAL,
    OWN_OPTIONS,
    UNAPPLIED,
    as_typed,
    check_batch_size,
    check_max_rows,
    check_store_folder,
    loading_error,
    quantization,
    refuse_empty,
    refuse_unknown,
    require_extras,
)
from lm_eval_eglr.harness.planning import Planner
from lm_eval_eglr.harness.processes import budget_group_digests, duplicate_requests, gather, with_all_metrics
from lm_eval_eglr.harness.recording import Recording, recording
from lm_eval_eglr.harness.tensor_parallel import TensorParallel, check_heads, processes_per_model
from lm_eval_eglr.paths import resolve
from lm_eval_eglr.store import Manifest, StoreWriter

logger = logging.getLogger(__name__)

T = TypeVar("T")

OPEN_GATE = 0.5  # share of gated tokens from which on the threshold is said not to fit


class EGLRLM(HFLM):
    """HFLM whose ``generate_until`` decodes pools, with entropy-gated latent recursion or over recurrences.

    Every HFLM argument keeps its meaning and loglikelihood tasks run as with ``--model hf``. A task of
    this project gets the whole pool of each problem, by default its depth × temperature grid; any other task
    gets one text, by default that of plain greedy decoding, which is what ``--model hf`` gives.
    """

    DECODES_POOLS = True

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
        compile_layers: bool = False,
        max_rows: int | str | None = None,
        tp_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Checks the options, then loads the model, then checks what depends on it.

        Args:
            pretrained: Model name, folder, or a loaded model; ``demo`` and ``demo-recurrent`` are models that
                ship with the package, demonstrations and test fixtures.
            strategy: Which rollouts a problem gets: ``grid``, ``sample``, ``eager`` or ``adaptive_grid``;
                each has options of its own, see docs/strategies.md.
            spans: Spans L, layers: ``0:2:4``, a list, or shares of the depth such as ``0:25%``. Below 16
                layers the default is ``0:12.5%:25%:50%``. A recurrent-depth model takes ``recurrences``
                instead, ``4:8:16:32``, up to 1,024, by default its own number of them.
            temperatures: Temperatures: ``0:0.7``, a list, or repetitions such as ``0.7x3``, three samples.
            rollouts: Folder of the store that gets every rollout, and from which a stopped run continues.
            trace: Whether the store also gets entropy, log-probability and iterations of every token.
            selector: Whose text a task gets that knows nothing of pools. ``greedy`` decodes one rollout;
                any other decodes the pool.
            cuda_graphs: Whether decode steps are captured, where the model lies on one CUDA device.
            compile_layers: Whether the decoder layers run through torch.compile, which takes a minute or more
                at start.
            max_rows: Most rows at once where ``batch_size`` leaves it open; ``pool`` decodes one pool at a
                time, so that a resumed run equals an uninterrupted one byte for byte.
            tp_size: Processes that hold one model together, by transformers' tensor parallelism; with
                ``tp_plan=auto`` alone it is all of them. More share the documents.
            **kwargs: The strategy's other options, fields of RecursionConfig (or RecurrentConfig) and
                SamplingConfig, and everything that HFLM takes.

        Raises:
            ValueError: For an unknown option or a bad value.
        """
        refuse_empty({"pretrained": pretrained, "strategy": strategy, "spans": spans, **kwargs})
        refuse_empty({"temperatures": temperatures, "rollouts": rollouts, "selector": selector})
        own = as_typed({key: kwargs.pop(key) for key in DECODING_OPTIONS if key in kwargs})
        refuse_unknown(kwargs, OWN_OPTIONS, inspect.signature(HFLM.__init__).parameters)
        require_extras(kwargs)
        read_options(strategy, {"spans": spans, "temperatures": temperatures, **own})
        for option, value in (
            ("trace", trace),
            ("cuda_graphs", cuda_graphs),
            ("compile_layers", compile_layers),
        ):
            if not isinstance(value, bool):
                raise ValueError(f"{option}={value!r}: expected True or False")
        plan = kwargs.pop("tp_plan", None)
        size = processes_per_model(plan, tp_size, kwargs.get("parallelize"))
        if size > 1 and not isinstance(pretrained, str):
            raise ValueError(f"tp_size={size}: expected the name of a model, which all processes load")
        if size > 1 and compile_layers:
            raise ValueError(
                f"compile_layers=True: not with tp_size={size}, where processes share each layer"
            )
        own.pop("kv", None)
        check_batch_size(kwargs.get("batch_size", 1))
        check_max_rows(max_rows)
        self.rows_at_most = max_rows
        self._selector = get_selector(selector)
        self._ranks = TensorParallel(size) if size > 1 else None
        self._tp_plan = plan
        rank = int(os.environ.get("RANK", 0)) if self._ranks is None else self._ranks.group
        writes = self._ranks is None or self._ranks.rank == 0
        folder = None if rollouts is None else Path(check_store_folder(rollouts))
        self._store = StoreWriter(folder, rank) if folder is not None and writes else None
        self.store_folder = None if self._store is None else folder
        revision = kwargs.get("revision")
        # HFLM's own default is "cuda", also where there is none.
        kwargs.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
        self._quantization = quantization(kwargs)
        try:
            if self._ranks is None:
                super().__init__(resolve(pretrained), **kwargs)
            else:
                self._load_together(self._ranks, resolve(pretrained), kwargs)
        except (ValueError, OSError, ImportError) as error:
            raise loading_error(pretrained, error) from error
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
            compile_layers=compile_layers,
            **own,
        )
        name = pretrained if isinstance(pretrained, str) else str(self.model.config._name_or_path)
        self._manifest = (
            Manifest() if folder is None else manifest_of(self._decoder, self.model, name, revision)
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
        planner = Planner(
            self,
            self._decoder,
            always_pools=self._selector.name != "greedy",
            only_hf=bool(self._unapplied),
            agree=self._agree,
        )
        theirs = {number for number, request in enumerate(requests) if planner.is_left_to_hflm(request)}
        plans = {
            number: planner.plan(request) for number, request in enumerate(requests) if number not in theirs
        }
        keys = keys_of(requests)
        shares = self._decoder.plan.budget != "none"
        pooled = {n: plan for n, plan in plans.items() if planner.wants_pool(requests[n])}
        sharing = budget_group_digests(pooled, keys, self._gather) if shares else {}
        with recording(
            self._store, self._manifest, requests, plans, FALLBACKS, self._pieces, sharing
        ) as record:
            record.served, record.kept = self._agree(lambda: (record.served, record.kept))
            pools = dict(record.served)
            missing = sorted(theirs - pools.keys())
            if missing:
                texts = super().generate_until(
                    [requests[number] for number in missing], disable_tqdm or not self.speaks
                )
                for number, text in zip(missing, texts, strict=True):
                    rollout = Rollout(text, planner.single_cell())
                    pools[number] = RolloutPool((rollout,), requests[number].args[0])
                    record.keep(number, pools[number])
            assignments = {
                number: planner.assignment(requests[number], plan, keys[number])
                for number, plan in plans.items()
            }
            responses = self._decode(planner, assignments, requests, record, disable_tqdm)
        for number, pool in pools.items():
            text = self._text(plans[number], pool) if number in plans else pool[0].text
            responses[number] = PoolResponse.of(text, pool)
        return [responses[number] for number in range(len(requests))]

    @property
    def speaks(self) -> bool:
        """Whether this process prints for all of the run."""
        return self.rank == 0 if self._ranks is None else self._ranks.speaks

    @property
    def holds_a_share(self) -> bool:
        """Whether other processes hold the other shares of the model."""
        return self._ranks is not None

    def _load_together(self, ranks: TensorParallel, pretrained: str, kwargs: dict[str, Any]) -> None:
        with ranks.as_world():
            super().__init__(pretrained, tp_plan=self._tp_plan or "auto", **kwargs)
        # HFLM takes all processes for one, and numbers even CPUs.
        self._rank, self._world_size = ranks.group, ranks.groups
        if self.device.type == "cpu":
            self._device = torch.device("cpu")

    def _get_config(self, *args: Any, **kwargs: Any) -> None:
        """As HFLM; refuses a model whose heads cannot be shared out."""
        super()._get_config(*args, **kwargs)
        if self._ranks is not None:
            check_heads(self._config, self._ranks.size)

    def _get_backend(self, config: Any, backend: Any = "default", *args: Any, **kwargs: Any) -> None:
        """As HFLM, which knows the types of models that come with transformers, and not registered ones."""
        if (
            backend == "default"
            and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
            and type(config) not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
        ):
            self.backend = "causal"
            self.AUTO_MODEL_CLASS = AutoModelForCausalLM
        else:
            super()._get_backend(config, backend, *args, **kwargs)

    def _get_accelerate_args(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As HFLM; a device map is none of a model that processes hold together."""
        return super()._get_accelerate_args(*args, **kwargs) if self._ranks is None else {}

    def _create_model(self, *args: Any, **kwargs: Any) -> None:
        """As HFLM, with the quantization that the user asks for, on the processes that hold it together."""
        if self._quantization is not None:
            kwargs["quantization_config"] = self._quantization
        if self._ranks is not None:
            kwargs |= self._ranks.loading(self._tp_plan)
        super()._create_model(*args, **kwargs)

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """As HFLM, of the processes that have documents of their own."""
        if self._ranks is None or self._world_size == 1:
            return super().all_gather(tensor)
        found = [each.reshape(1) if each.dim() == 0 else each for each in self._ranks.gather(tensor.cpu())]
        return torch.cat(found).to(tensor.device)

    def gather_object(self, obj: Any, dst: int = 0) -> Any:
        """As HFLM; where lm_eval gathers metrics, every process has all of them, if only empty."""
        if self._ranks is None or self._world_size == 1:
            gathered = super().gather_object(obj, dst)
        else:
            gathered = self._ranks.exchange(obj)
        return gathered and with_all_metrics(gathered)

    def barrier(self) -> None:
        """As HFLM."""
        if self._ranks is None or self._world_size == 1:
            super().barrier()
        else:
            self._ranks.gather(None)

    def _gather(self, items: list[Any]) -> list[Any]:
        """Joins the items of all processes that have documents of their own."""
        if self._ranks is None:
            return gather(items)
        return [item for each in self._ranks.gather(items) for item in each]

    def _agree(self, make: Callable[[], T]) -> T:
        """What ``make`` returns, on the first of the processes that hold the model together."""
        return make() if self._ranks is None else self._ranks.same(make)

    def _decode(
        self,
        planner: Planner,
        assignments: dict[int, PromptJob],
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
        planner.warn_cut(plans, requests)
        self._decoder.engine.max_rows = planner.rows(list(rest.values()))
        responses = {}
        failed: dict[int, int] = {}
        rounds = self._decoder.rounds(
            assignments=rest.values(),
            progress=not disable_tqdm and self.speaks,
            keep=record.keep_round,
            gather=self._gather,
        )
        for number, pool in rounds.run(assignments, served, record.kept):
            record.keep(number, pool)
            broken = sum(rollout.finish_reason == "error" for rollout in pool)
            if broken:
                failed[number] = broken
            responses[number] = PoolResponse.of(self._text(plans[number], pool), pool)
            self.cache_hook.add_partial("generate_until", requests[number].args, responses[number])
        if self.speaks and not math.isnan(acceptance := self._decoder.draft_acceptance):
            logger.info("%.0f%% of the drafted tokens were drawn", 100 * acceptance)
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

    def _warn_of_open_gate(self, pools: Iterable[RolloutPool | None]) -> None:
        """Says if most tokens were recursed: then the threshold, which is in nats, does not fit the model."""
        rate, recursion = measured_gate_rate(pools), self._decoder.engine.recursion
        if rate > OPEN_GATE and self.speaks and isinstance(recursion, RecursionConfig):
            logger.warning(
                "the gate was open at %.0f%% of the tokens (entropy_threshold=%g), which is costly and may "
                "do harm; eglr calibrate --model NAME --gate-rate 0.2 finds a value for this model",
                100 * rate,
                recursion.entropy_threshold,
            )

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
