"""Pools of plain samples, whatever draws them: which cells, which seeds, what is stored and served again."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from eglr_selectors import Cell, Rollout, RolloutPool
from eglr_selectors.options import check_range
from lm_eval.api.instance import Instance
from lm_eval.models.utils import postprocess_generated_text

from lm_eval_eglr.decoding.strategies.grid import Items, grid_cells, parse_temperatures
from lm_eval_eglr.harness.instances import PoolRequest, PoolResponse, keys_of
from lm_eval_eglr.harness.recording import recording
from lm_eval_eglr.importing.imported import FALLBACKS
from lm_eval_eglr.store import Manifest, StoreWriter

logger = logging.getLogger(__name__)

DEFAULT_TEMPERATURES = "0:0.7x15"
"""One greedy rollout and fifteen samples."""

LOGPROBS = 20
"""Likeliest tokens whose log-probability is asked for at every token: what confidence is a mean over."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One rollout that is to be decoded.

    Attributes:
        request: Number of its request.
        cell: Its place in the pool.
        seed: Seed of its draws; ``None`` leaves it to the engine.
    """

    request: int
    cell: Cell
    seed: int | None


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How pools are drawn.

    Attributes:
        temperatures: As of hf-eglr, such as ``0:0.7x15``; ``None`` leaves it to the task's generation
            options, and without any is ``DEFAULT_TEMPERATURES``.
        seed: Of all draws; with the prompt and the rollout's cell it decides them. ``None`` sends no seed.
        top_p: Smallest set of tokens that has this probability; 1 is all.
        top_k: So many likeliest tokens; 0 is all.
        min_p: Tokens of at least this share of the likeliest one's probability.
        trace: Whether the log-probability and confidence of every token are kept, not only their means.
    """

    temperatures: Items | None = None
    seed: int | None = 0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    trace: bool = True

    def __post_init__(self) -> None:
        parse_temperatures(self.temperatures)
        if self.seed is not None:
            check_range("seed", self.seed, 0, integer=True)
        check_range("top_p", self.top_p, 0, 1, open_low=True)
        check_range("top_k", self.top_k, 0, integer=True)
        check_range("min_p", self.min_p, 0, 1)
        if not isinstance(self.trace, bool):
            raise ValueError(f"trace={self.trace!r}: expected True or False")

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of a pool."""
        return grid_cells((0,), parse_temperatures(self.temperatures or DEFAULT_TEMPERATURES))


class SampledPools:
    """``generate_until`` for a model class whose engine draws plain samples.

    A request for a pool gets the rollouts of ``temperatures``; where there are none and the request samples
    (``--gen_kwargs do_sample=True,temperature=0.7`` with ``--metadata repeats=N``), one rollout per request.
    Any other task gets one text under its own options. With ``rollouts=DIR`` every pool is stored as soon as
    it is complete, and the same command continues from there.
    """

    rank: int
    cache_hook: Any
    think_end_token: str | None

    def _set_up(self, options: SamplingOptions, rollouts: str | None, fingerprint: Mapping[str, Any]) -> None:
        """Begins a run; ``fingerprint`` is what decides the rollouts besides the options."""
        self._options = options
        self._store = (
            None if rollouts is None else StoreWriter(Path(rollouts), int(os.environ.get("RANK", 0)))
        )
        self.store_folder = None if self._store is None else self._store.folder
        drawing = {name: getattr(options, name) for name in ("seed", "top_p", "top_k", "min_p")}
        cells = None if options.temperatures is None else [str(cell) for cell in options.cells]
        self._manifest = Manifest({**fingerprint, "cells": cells, **drawing}, _versions())

    def _draw(
        self, draws: Sequence[Draw], requests: Sequence[Instance], disable_tqdm: bool
    ) -> Iterator[tuple[Draw, Rollout]]:
        """Yields the rollouts as they are decoded, in any order."""
        raise NotImplementedError

    def _pieces(self) -> list[str]:
        """The text of each token id; empty if there is no tokenizer."""
        return []

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers each request with a :class:`PoolResponse`: a text, with its pool.

        Raises:
            ValueError: If a request has a temperature of its own beside ``temperatures``.
            StoreError: If the store is of another run.
        """
        keys = keys_of(requests)
        cells = {number: self._cells(request, keys[number][2]) for number, request in enumerate(requests)}
        responses: dict[int, PoolResponse] = {}
        with recording(self._store, self._manifest, requests, {}, FALLBACKS, self._pieces) as record:
            for number, pool in record.served.items():
                responses[number] = self._response(pool)
            draws = [
                Draw(number, cell, self._seed(requests[number], keys[number][2], cell))
                for number in range(len(requests))
                if number not in responses
                for cell in cells[number]
            ]
            drawn: dict[int, dict[Cell, Rollout]] = {}
            for draw, rollout in self._draw(draws, requests, disable_tqdm):
                number = draw.request
                found = drawn.setdefault(number, {})
                found[draw.cell] = rollout
                if len(found) == len(cells[number]):
                    ordered = tuple(found[cell] for cell in cells[number])
                    pool = RolloutPool(ordered, _prompt(requests[number]))
                    record.keep(number, pool)
                    responses[number] = self._response(pool)
                    self.cache_hook.add_partial("generate_until", requests[number].args, responses[number])
                    del drawn[number]
        _warn_of_lost_seed(responses[number].pool for number in sorted(responses))
        return [responses[number] for number in range(len(requests))]

    def _cells(self, request: Instance, repeat: int) -> tuple[Cell, ...]:
        options = request.args[1]
        # As lm_eval has it: a temperature samples unless do_sample=False; do_sample=True alone means 1.
        temperature = float(options.get("temperature") or 0.0)
        do_sample = options.get("do_sample", temperature > 0)
        temperature = (temperature or 1.0) if do_sample else 0.0
        sampled = temperature > 0
        if not isinstance(request, PoolRequest):
            return (Cell(0, temperature, repeat),)
        if not sampled:
            return self._options.cells
        if self._options.temperatures is not None:
            raise ValueError(
                f"generation_kwargs temperature={temperature:g}: a pool has its own; leave it out, or "
                f"temperatures={self._options.temperatures!r} in --model_args"
            )
        return (Cell(0, temperature, repeat),)

    def _seed(self, request: Instance, repeat: int, cell: Cell) -> int | None:
        """A seed of 31 bits; the same in every run, batch and order."""
        if self._options.seed is None:
            return None
        deciding = repr((self._options.seed, _prompt(request), repeat, cell.temperature, cell.sample))
        digest = hashlib.blake2b(deciding.encode("utf-8", "replace"), digest_size=4).digest()
        return int.from_bytes(digest, "big") >> 1

    def _response(self, pool: RolloutPool) -> PoolResponse:
        """The greedy text, else the first, without its thinking part."""
        rollout = next((each for each in pool if each.cell.temperature == 0), pool[0])
        text = postprocess_generated_text(rollout.text, None, self.think_end_token)
        return PoolResponse.of(text, pool)


def cut_after_thinking(rollout: Rollout, until: Sequence[str], think_end_token: str | None) -> Rollout:
    """Ends a text at the first stop string behind its thinking part, in which stop strings are common.

    Without a marker the engine itself has ended the text there.
    """
    if not think_end_token:
        return rollout
    thinking, marker, answer = rollout.text.rpartition(think_end_token)
    ended = postprocess_generated_text(answer, list(until), None)
    return (
        rollout if ended == answer else replace(rollout, text=thinking + marker + ended, finish_reason="stop")
    )


def _prompt(request: Instance) -> str:
    return str(request.args[0])


def _warn_of_lost_seed(pools: Iterable[RolloutPool | None]) -> None:
    """Says if an engine that was sent different seeds gave the same text for all of them."""
    equal: Counter[bool] = Counter()
    for pool in pools:
        texts = [rollout.text for rollout in pool or () if rollout.cell.temperature]
        if len(texts) > 1:
            equal[len(set(texts)) == 1] += 1
    if equal[True] and not equal[False]:
        logger.warning(
            "all samples of each of %d problems are equal: the engine seems to ignore temperature and seed",
            equal[True],
        )


def _versions() -> dict[str, str]:
    found = {}
    for package in ("lm-eval-eglr", "lm_eval", "vllm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
