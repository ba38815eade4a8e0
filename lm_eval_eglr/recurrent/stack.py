"""A recurrent-depth model as the engine runs it: tokens that lie flat, each iterated as often as it needs.

Every token is run to the end in one pass: prelude, its iterations, coda. The batch shrinks as tokens have
made theirs, or as their exit rule lets them go, and nothing of a token depends on what else is in the batch
or leaves it sooner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from lm_eval_eglr.decoding.depth import Iterate
from lm_eval_eglr.decoding.model.kv_cache import KVCache, rows_that_fit
from lm_eval_eglr.decoding.model.layer_stack import evaluating
from lm_eval_eglr.decoding.numerics import at_least_fp32, on_device
from lm_eval_eglr.recurrent.config import RecurrentConfig
from lm_eval_eglr.recurrent.models import RecurrentModel
from lm_eval_eglr.recurrent.passes import CODA, CORE, PRELUDE, AnswerAttention, FlatPass, LayerNumbers
from lm_eval_eglr.shards import Shards

NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that a pass runs; all arrays are ``[tokens]``.

    Attributes:
        ids: Token ids.
        positions: Their positions.
        slots: Their rows of the cache.
        levels: Iterations that each may make.
        seen: Columns of its row that each attends to, the first ones.
    """

    ids: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    levels: np.ndarray
    seen: np.ndarray

    @classmethod
    def causal(cls, ids: np.ndarray, positions: np.ndarray, slots: np.ndarray, levels: np.ndarray) -> Tokens:
        """Tokens that attend to what is before them, and to themselves."""
        return cls(ids, positions, slots, levels, positions + 1)


@dataclass(slots=True)
class Recurrence:
    """How far tokens have come; arrays and first dimensions are ``[tokens]``.

    Attributes:
        states: Their latest latent states.
        iterations: Iterations that they have made.
        divergences: What the last iteration moved, by the rule of exit; 0 without one.
        converged: Whether that fell below the threshold.
        near: Whether rounding decides it.
        logprobs: ln p of each, where the rule of exit reads them.
        checks: Times that the coda was run for the rule of exit.
    """

    states: Tensor
    iterations: np.ndarray
    divergences: np.ndarray
    converged: np.ndarray
    near: np.ndarray
    logprobs: Tensor | None
    checks: np.ndarray


class RecurrentStack:
    """The model with its options.

    Attributes:
        recurrent: The adapter.
        model: The model.
        config: The options.
        depth: Layers that a token runs through with the model's own number of iterations.
        base_layers: Those that it runs through once.
        shards: This process, which holds the model alone.
        outer_bytes, core_bytes: Keys and values of one position in prelude and coda, and in one slot of the
            recurrent block, bytes by device; known once the check has run them.
        rounding: How far a log-probability moves by rounding, nats.
        drafted: Tokens that were drafted so far.
        accepted: Those of them that were drawn.
        compiled_layers: Layers that run compiled: none.
    """

    shares_levels = False
    compiled_layers: Sequence[nn.Module] = ()

    def __init__(self, recurrent: RecurrentModel, config: RecurrentConfig) -> None:
        self.recurrent = recurrent
        self.model: PreTrainedModel = recurrent.model
        self.config = config
        self.base_layers = recurrent.outer_layers
        self.depth = self.base_layers + recurrent.core_layers * recurrent.recurrences
        self.shards = Shards()
        self.outer_bytes: dict[torch.device, int] = {}
        self.core_bytes: dict[torch.device, int] = {}
        self.rounding = 0.0
        self.drafted = self.accepted = 0
        self._numbers = LayerNumbers()
        self._running: FlatPass | None = None

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, where token ids go."""
        return next(self.model.get_input_embeddings().parameters()).device

    @property
    def bytes_per_token(self) -> dict[torch.device, int]:
        """Keys and values of one position with the model's own number of iterations, bytes by device."""
        return self._bytes(self.recurrent.recurrences)

    def _bytes(self, level: int) -> dict[torch.device, int]:
        slots = self.config.slots(level)
        return {
            device: self.outer_bytes.get(device, 0) + slots * self.core_bytes.get(device, 0)
            for device in self.outer_bytes.keys() | self.core_bytes.keys()
        }

    def measure(self, cache: KVCache) -> None:
        """Reads from a cache that this stack has filled how large a position is."""
        parts = {number: (part, slot) for part, slot, number in self._numbers.parts()}
        for number, tensor in (*cache.keys.items(), *cache.values.items()):
            part, slot = parts[number]
            if slot == 0:
                sizes = self.core_bytes if part == CORE else self.outer_bytes
                size = tensor.shape[1] * tensor.shape[3] * tensor.element_size()
                sizes[tensor.device] = sizes.get(tensor.device, 0) + size

    def rows_that_fit(self, length: int, deepest: int) -> int:
        """Rows of ``length`` positions, iterated ``deepest`` times, that fit into memory, 1 to 256."""
        vocabulary = self.model.config.get_text_config().vocab_size
        return rows_that_fit(self._bytes(deepest), length, vocabulary)

    def layer_parameters(self) -> float:
        """Parameters of a layer."""
        return self.recurrent.layer_parameters()

    def head_parameters(self) -> int:
        """Parameters of the unembedding."""
        return self.recurrent.head_parameters()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Lets passes answer the model's attention during the block; afterwards the model is as it was."""
        configs = {id(m.config): m.config for m in self.model.modules() if isinstance(m, PreTrainedModel)}
        before = {key: config._attn_implementation for key, config in configs.items()}
        try:
            for config in configs.values():
                # Code of transformers asks a registry; remote code calls the function of torch.
                config._attn_implementation = ATTENTION
            with evaluating(self.model), AnswerAttention(lambda: self._running):
                yield
        finally:
            for key, config in configs.items():
                config._attn_implementation = before[key]

    def slot(self, step: int) -> int:
        """Where iteration ``step`` keeps its keys and values."""
        return step if self.config.kv_budget is None else step % self.config.kv_budget

    @contextmanager
    def passing(self, cache: KVCache, tokens: Tokens) -> Iterator[FlatPass]:
        """A pass over tokens, which the model is in during the block."""
        running = FlatPass(cache, self._numbers, tokens.slots, tokens.positions, tokens.seen, self.device)
        self._running = running
        try:
            yield running
        finally:
            self._running = None

    def embed(self, running: FlatPass, tokens: Tokens) -> Tensor:
        """The prelude, ``[tokens, dim]``."""
        running.enter(PRELUDE)
        ids = on_device(tokens.ids, self.device)
        return self.recurrent.embed(ids, running.columns, running)

    def predict(self, running: FlatPass, states: Tensor, wanted: Tensor) -> Tensor:
        """ln p of the wanted tokens, ``[wanted, vocab]``, in fp32 at least; the coda runs all of them."""
        running.enter(CODA)
        logits = self.recurrent.predict(states, running.columns, wanted, running)
        running.enter(CODA)
        return at_least_fp32(logits).log_softmax(-1)

    def iterate(
        self,
        running: FlatPass,
        embedded: Tensor,
        states: Tensor,
        levels: np.ndarray,
        *,
        first: int = 0,
        exits: bool = True,
    ) -> Recurrence:
        """Iterates tokens until each has made as many as it may, or converged.

        Args:
            running: The pass, with all its tokens.
            embedded: What is injected, ``[tokens, dim]``.
            states: Before iteration ``first``, ``[tokens, state]``.
            levels: Iterations that each may make, more than ``first``, ``[tokens]``.
            first: Iterations that were made before.
            exits: Whether the rule of exit is asked.
        """
        count, rule = len(levels), self.config.rule if exits else None
        zeros = np.zeros(count)
        made = Recurrence(
            states.clone(),
            np.full(count, first),
            zeros.copy(),
            zeros.astype(bool),
            zeros.astype(bool),
            None,
            np.zeros(count, np.int64),
        )
        reads = rule is not None and rule.reads_distributions
        alive = np.arange(count)
        before = Iterate(states, None)
        for step in range(first, int(levels.max(initial=0))):
            running.enter(CORE, self.slot(step))
            states = self.recurrent.iterate(embedded, before.states, running.columns, step, running)
            running.enter(CORE)
            now = Iterate(states, None)
            if reads:
                everyone = torch.arange(len(alive), device=self.device)
                now.logprobs = self.predict(running, states, everyone)
                made.checks[alive] += 1
                if made.logprobs is None:
                    made.logprobs = now.logprobs.new_zeros(count, now.logprobs.shape[-1])
            done = levels[alive] == step + 1
            if rule is not None and step > 0:
                distances = rule.distance(now, before).double().cpu().numpy()
                threshold = self.config.threshold
                reach = rule.rounding(threshold, self.rounding)
                made.near[alive] |= np.abs(distances - threshold) <= reach
                made.divergences[alive], made.converged[alive] = distances, distances < threshold
                done |= distances < threshold
            if not done.any():
                before = now
                continue
            ended = alive[done]
            places = on_device(np.flatnonzero(done), states.device)
            targets = on_device(ended, states.device)
            made.states[targets] = states[places]
            made.iterations[ended] = step + 1
            if now.logprobs is not None and made.logprobs is not None:
                made.logprobs[targets] = now.logprobs[places]
            self._fill(running, ended[levels[ended] > step + 1], levels, step + 1)
            alive = alive[~done]
            if not len(alive):
                break
            left = on_device(np.flatnonzero(~done), states.device)
            embedded = embedded[left]
            before = Iterate(states[left], None if now.logprobs is None else now.logprobs[left])
            running.keep(alive)
        running.keep(np.arange(count))
        return made

    def _fill(self, running: FlatPass, early: np.ndarray, levels: np.ndarray, made: int) -> None:
        """Leaves the last keys and values of tokens that exited in the slots that they did not reach."""
        if len(early):
            slots = self.config.slots(int(levels[early].max()))
            if made < slots:
                running.fill(early, self.recurrent.core_layers, made, slots)

    def run(
        self, cache: KVCache, tokens: Tokens, wanted: np.ndarray, *, exits: bool = True
    ) -> tuple[Tensor, Recurrence]:
        """Runs tokens to the end, and stores their keys and values.

        Args:
            cache: With room for them.
            tokens: The tokens.
            wanted: Those whose distributions are wanted, ``[wanted]``.
            exits: Whether the rule of exit is asked.

        Returns:
            ln p of those that are wanted, ``[wanted, vocab]``, and how far all of them have come.
        """
        with self.passing(cache, tokens) as running:
            embedded = self.embed(running, tokens)
            states = self.recurrent.begin(embedded, running.columns)
            made = self.iterate(running, embedded, states, tokens.levels, exits=exits)
            index = on_device(wanted, self.device)
            if made.logprobs is not None:
                return made.logprobs.index_select(0, index), made
            return self.predict(running, made.states, index), made

    def work(self, made: Recurrence) -> np.ndarray:
        """Layers and heads that tokens took beyond prelude, coda and one head, ``[tokens, 2]``."""
        more = np.maximum(made.checks - 1, 0)
        layers = self.recurrent.core_layers * made.iterations + self.recurrent.predict_layers * more
        return np.stack([layers, more], -1)


ATTENTION = "eglr_recurrent"


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """The attention interface of transformers: as the function of torch, which a pass answers."""
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attention)
