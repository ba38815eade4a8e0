"""A pass over tokens that lie flat, each in a row of the cache and at a position of its own.

The model is given one sequence ``[1, tokens]`` with this as its cache. Everything but attention works token
by token; attention is answered here, to the row's own keys and values up to the token's position. So rows of
any lengths, whole prompts and several tokens of a row run side by side, and no model code is touched.

Keys and values lie in the cache by part of the model, layer within the part, and slot: prelude and coda have
one slot, the recurrent block one for each iteration, or ``kv_budget`` of them that later ones use again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import Cache

from lm_eval_eglr.decoding.model.attention import row_attention
from lm_eval_eglr.decoding.model.kv_cache import KVCache
from lm_eval_eglr.decoding.model.layer_stack import UnsupportedModelError
from lm_eval_eglr.decoding.model.shared_past import SharedLayout
from lm_eval_eglr.decoding.numerics import on_device

PRELUDE, CORE, CODA = "prelude", "core", "coda"


class LayerNumbers:
    """Numbers under which the cache keeps layers: of a part, a layer in it and a slot."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int, int], int] = {}

    def __call__(self, part: str, layer: int, slot: int) -> int:
        """The number, given out at the first call."""
        return self._numbers.setdefault((part, layer, slot), len(self._numbers))

    def parts(self) -> list[tuple[str, int, int]]:
        """Part, slot and number of all that were given out."""
        return [(part, slot, number) for (part, _, slot), number in self._numbers.items()]


class FlatPass(Cache):
    """What the model's layers take for their cache during a pass.

    Attributes:
        slots: Row of the cache of each token, ``[tokens]``, on the host.
        positions: Position of each, ``[tokens]``, on the host.
        columns: The same where the model runs.
    """

    def __init__(
        self,
        cache: KVCache,
        numbers: LayerNumbers,
        slots: np.ndarray,
        positions: np.ndarray,
        seen: np.ndarray,
        device: torch.device,
    ) -> None:
        """Prepares a pass.

        Args:
            cache: Where keys and values are stored, with room for all of them.
            numbers: Under which numbers.
            slots: Row of the cache of each token, ``[tokens]``.
            positions: Position of each, ``[tokens]``.
            seen: Columns of its row that each attends to, the first ones, ``[tokens]``.
            device: Where the model runs.
        """
        super().__init__(layers=[])
        self._cache = cache
        self._numbers = numbers
        self._device = device
        self._part, self._slot, self._layer = PRELUDE, 0, 0
        self._waiting: int | None = None  # layer whose attention comes next
        self._all = (slots, positions, seen)
        self._choose(slots, positions, seen)

    def keep(self, places: np.ndarray) -> None:
        """Goes on with some of the tokens that the pass began with, ``[kept]``, ascending."""
        slots, positions, seen = self._all
        self._choose(slots[places], positions[places], seen[places])

    def _choose(self, slots: np.ndarray, positions: np.ndarray, seen: np.ndarray) -> None:
        self.slots, self.positions = slots, positions
        count = len(slots)
        self.width = int(seen.max(initial=1))
        self._index = on_device(slots, self._device)
        self.columns = on_device(positions, self._device)
        columns = torch.arange(self.width)
        mask = columns < torch.from_numpy(seen)[:, None]  # [tokens, width]
        if (slots == np.arange(count)).all():
            self._layout = None  # rows in their order: they are read as views
            self._mask = on_device(mask[:, None, None], self._device)
            return
        layout = SharedLayout.of(torch.from_numpy(slots), self._cache.rows)
        self._layout = layout.to(self._device)
        self._mask = self._layout.scatter(on_device(mask, self._device))[:, None]

    def enter(self, part: str, slot: int = 0) -> None:
        """Says which part of the model runs next, and in which slot it keeps its keys and values.

        Raises:
            UnsupportedModelError: If the part before asked for no attention after it stored keys.
        """
        self._check_answered()
        self._part, self._slot, self._layer = part, slot, 0

    def _check_answered(self) -> None:
        if self._waiting is not None:
            raise UnsupportedModelError(
                "a layer stored keys, and called neither scaled_dot_product_attention nor the attention "
                "interface of transformers: its attention cannot be answered row by row"
            )

    # What the model's layers do.

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Stores ``[1, key_heads, tokens, dim]`` of the layer that runs; the same tensors come back."""
        self._check_answered()
        number = self._numbers(self._part, self._layer, self._slot)
        self._layer += 1
        cache = self._cache
        if number not in cache.keys:
            cache.add_layer(number, key_states, value_states)
        cache.keys[number][self._index, :, self.columns] = key_states[0].transpose(0, 1)
        cache.values[number][self._index, :, self.columns] = value_states[0].transpose(0, 1)
        self._waiting = number
        return key_states, value_states

    def attend(self, query: Tensor, scaling: float | None = None) -> Tensor | None:
        """Attention of the tokens to their rows, ``[1, heads, tokens, dim]``; ``None`` if it is not ours."""
        number, self._waiting = self._waiting, None
        if number is None:
            return None
        keys, values = self._cache.keys[number], self._cache.values[number]
        tokens = query[0].transpose(0, 1)  # [tokens, heads, dim]
        layout = self._layout
        if layout is None:
            count = len(tokens)
            rows = tokens[:, :, None]
            past = keys[:count, :, : self.width], values[:count, :, : self.width]
            out = row_attention(rows, *past, self._mask, scaling=scaling)[:, 0]
        else:
            rows = layout.scatter(tokens).transpose(1, 2)  # [rows, heads, ranks, dim]
            past = layout.read(keys, self.width), layout.read(values, self.width)
            out = layout.gather(row_attention(rows, *past, self._mask, scaling=scaling))
        return out.transpose(0, 1)[None]

    def fill(self, places: np.ndarray, layers: int, made: int, slots: int) -> None:
        """Gives later iterations the keys and values of tokens that made no more: their last ones.

        Args:
            places: Which of the tokens of the pass, ``[tokens]``.
            layers: Layers of the block.
            made: Iterations that they have made.
            slots: Slots of the block; those from ``made`` on are filled.
        """
        rows, columns = (on_device(each[places], self._device) for each in self._all[:2])
        for layer in range(layers):
            last = self._numbers(CORE, layer, made - 1)
            for slot in range(made, slots):
                number = self._numbers(CORE, layer, slot)
                for store in (self._cache.keys, self._cache.values):
                    states = store[last][rows, :, columns]
                    if number not in store:
                        self._cache.add_layer(
                            number, *(self._like(each, last) for each in ("keys", "values"))
                        )
                    store[number][rows, :, columns] = states

    def _like(self, which: str, number: int) -> Tensor:
        store: dict[int, Tensor] = getattr(self._cache, which)
        return store[number][:1]

    # What code of transformers may ask of a cache.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns that are read; positions are always passed explicitly."""
        return self.width

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """As many columns as there are tokens, which a mask of the model's own may have: it is not read."""
        return query_length, 0


class AnswerAttention(TorchFunctionMode):
    """Lets a pass answer the calls of ``scaled_dot_product_attention`` that follow a layer's ``update``."""

    def __init__(self, running: Callable[[], FlatPass | None]) -> None:
        """Asks ``running`` for the pass that runs."""
        super().__init__()
        self._running = running

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answers the one function, and hands on all others."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            running = self._running()
            query = args[0] if args else kwargs["query"]
            answer = None if running is None else running.attend(query, kwargs.get("scale"))
            if answer is not None:
                return answer
        return func(*args, **kwargs)
