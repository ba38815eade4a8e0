"""From lm_eval's requests to the decoder's: prompt tokens, cells, length limit, stop rule, rows at once."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence

import torch
from eglr_selectors import Cell, ParsedPool, RolloutPool, parse_pool
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.pool_decoder import DocumentKeys
from lm_eval_eglr.decoding.request import Request
from lm_eval_eglr.decoding.stopping import StopRule
from lm_eval_eglr.decoding.strategies.grid import FixedPlan
from lm_eval_eglr.decoding.strategies.rounds import Key, PromptJob
from lm_eval_eglr.harness.generation import check_known, check_length
from lm_eval_eglr.harness.instances import FALLBACKS, PoolRequest
from lm_eval_eglr.harness.model_arguments import DRAW_OPTIONS, GENERATION_OPTIONS

logger = logging.getLogger(__name__)


class Planner:
    """Plans the requests of one call of ``generate_until``.

    Args:
        model: The loaded model, for its tokenizer, context and batch size.
        decoder: What will decode the requests.
        always_pools: Whether tasks that know nothing of pools get one too, for a selector to reduce.
        only_hf: Whether the model's generation config has settings that only transformers' own generate
            knows, so that single texts are left to it.
        agree: Lets processes that hold a model together make something once, to the same end.
    """

    def __init__(
        self,
        model: HFLM,
        decoder: PoolDecoder,
        *,
        always_pools: bool,
        only_hf: bool,
        agree: Callable[[Callable[[], ParsedPool]], ParsedPool] = lambda make: make(),
    ) -> None:
        self._model = model
        self._decoder = decoder
        self._always_pools = always_pools
        self._only_hf = only_hf
        self._agree = agree
        self._documents = DocumentKeys()

    def wants_pool(self, request: Instance) -> bool:
        """Whether a request gets a pool rather than one text."""
        return isinstance(request, PoolRequest) or self._always_pools

    def single_cell(self, temperature: float = 0.0) -> Cell:
        """The cell of a single text: the model as it is, with a recurrent one's own number of recurrences."""
        axis = self._decoder.engine.axis
        return Cell(axis.own, temperature, axis=axis.letter)

    def is_left_to_hflm(self, request: Instance) -> bool:
        """Whether a request needs one text under settings that only transformers' own generate knows."""
        if self.wants_pool(request):
            return False
        options = normalize_gen_kwargs(request.args[1], self._model.max_gen_toks)
        return self._only_hf or any(key not in GENERATION_OPTIONS for key in options)

    def plan(self, request: Instance) -> Request:
        """Turns lm_eval's request into the decoder's; the prompt is cut on the left as HFLM does.

        Raises:
            ValueError: If its generation options are not those of a pool.
        """
        context, gen_kwargs = request.args
        model = self._model
        options = normalize_gen_kwargs(gen_kwargs, model.max_gen_toks)
        for key, value in options.items():
            check_known(key, value)
        if self.wants_pool(request):
            cells = self._decoder.cells
            for key in ("temperature", *DRAW_OPTIONS):
                if options.get(key):
                    raise ValueError(
                        f"generation_kwargs {key}={options[key]!r}: a pool has its own; "
                        f"set it in --model_args ({'temperatures' if key == 'temperature' else key}=...)"
                    )
        else:
            default = 1.0 if options["do_sample"] else 0.0  # as transformers has it
            cells = (self.single_cell(float(options.get("temperature", default))),)
        drawing = {key: options[key] for key in DRAW_OPTIONS if key in options}
        tokens = model.tok_encode(context)
        if not tokens and model.prefix_token_id is not None:
            tokens = [model.prefix_token_id]  # what HFLM begins an empty context with
        limit = self._limit(options["max_gen_toks"])
        tokens = tokens[-(model.max_length - limit) :]
        return self._decoder.request(
            tokens,
            cells,
            limit,
            StopRule(
                tuple(handle_stop_sequences(list(options["until"]), eos=self._eos)),
                model.think_end_token if isinstance(model.think_end_token, str) else None,
            ),
            self._documents.key(tokens, str(request.doc_id)),
            context,
            dataclasses.replace(self._decoder.sampling, **drawing),
        )

    def assignment(self, request: Instance, plan: Request, key: Key) -> PromptJob:
        """What the decoder is to do for a request.

        Raises:
            ValueError: If the budget is shared by labels and the request has no reference.
        """
        if not self.wants_pool(request):
            return PromptJob(plan, FixedPlan(plan.cells), key)
        decoding_plan = self._decoder.plan
        if decoding_plan.budget == "labels" and (
            not isinstance(request, PoolRequest) or request.reference is None
        ):
            raise ValueError(
                f"budget='labels': document {request.doc_id} of {request.task_name} has no reference; "
                "use budget=free"
            )

        def read(pool: RolloutPool) -> ParsedPool:
            # Grading may run out of time on one process and not on another.
            if not isinstance(request, PoolRequest):
                return self._agree(lambda: parse_pool(pool, fallbacks=FALLBACKS))
            reference, rules, fallbacks = request.reference, request.rules, request.fallbacks
            return self._agree(lambda: parse_pool(pool, reference, rules, fallbacks))

        return PromptJob(plan, decoding_plan, key, read)

    def rows(self, assignments: Sequence[PromptJob]) -> int:
        """How many rows are live at once; a pool's cells are always decoded together.

        ``batch_size=auto`` takes as many as fit, and on a GPU so does 1, lm_eval's default: pools one by one
        would leave it idle. On a CPU 1 decodes one pool at a time, which costs little there and keeps every
        bit of it. ``max_rows`` bounds them.
        """
        model = self._model
        cells = max((each.plan.rows for each in assignments), default=1)
        if model.rows_at_most == "pool":
            return cells
        most = math.inf if model.rows_at_most is None else int(model.rows_at_most)
        if most < cells:
            logger.warning("max_rows=%d: a pool needs %d rows, its cells are decoded together", most, cells)
        size = str(model.batch_size)
        default = size == "1" and (torch.device(model.device).type == "cuda" or most < math.inf)
        if not (size.startswith("auto") or default):
            return max(cells, int(min(most, int(size))))
        plans = [each.request for each in assignments]
        longest = max((len(plan.tokens) + plan.max_new_tokens for plan in plans), default=1)
        deepest = max((cell.depth for plan in plans for cell in plan.cells), default=0)
        rows = max(cells, int(min(most, self._decoder.stack.rows_that_fit(longest, deepest))))
        if default:
            logger.info(
                "batch_size=1: decoding up to %d rows at once, pools side by side; max_rows=pool decodes one "
                "pool at a time",
                rows,
            )
        return rows

    def warn_cut(self, plans: dict[int, Request], requests: Sequence[Instance]) -> None:
        """Says how many prompts lost their beginning; HFLM says it per batch."""
        context = self._model.max_length
        cut = [n for n, plan in plans.items() if len(plan.tokens) == context - plan.max_new_tokens]
        lost = [n for n in cut if len(self._model.tok_encode(requests[n].args[0])) > len(plans[n].tokens)]
        if lost:
            logger.warning(
                "%d of %d prompts were cut on the left to fit a context of %d tokens with max_gen_toks "
                "(first: document %s)",
                len(lost),
                len(plans),
                context,
                requests[lost[0]].doc_id,
            )

    def _limit(self, max_gen_toks: int) -> int:
        """The length limit.

        Raises:
            ValueError: If it leaves no room for a prompt, as with ``--model hf``.
        """
        check_length(max_gen_toks)
        context: int = self._model.max_length
        if max_gen_toks >= context:
            raise ValueError(
                f"max_gen_toks={max_gen_toks}: the model's context of {context} tokens would have no room "
                f"for a prompt; give a smaller one, such as --gen_kwargs max_gen_toks={max(1, context // 2)}"
            )
        return max_gen_toks

    @property
    def _eos(self) -> str | None:
        eos = self._model.eot_token_id
        return None if eos is None else self._model.tok_decode(eos, skip_special_tokens=False)
