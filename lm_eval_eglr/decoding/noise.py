"""Uniforms for the draws: a function of seed, document, cell and step, and of nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
from eglr_selectors.pool import Cell

from lm_eval_eglr.decoding.config import SamplingConfig

BLOCK = 256


class DrawStream:
    """The uniforms of one cell of one document, by step.

    Philox is counter-based and its raw output is fixed by its definition, so the draws are the same on
    every machine, whatever the batch, the order of the documents or the other cells of the grid.
    With ``noise="shared"`` the span is left out of the key: common random numbers along L. Span 0 never
    enters, so that plain samples are the same ones in every grid.
    """

    def __init__(self, sampling: SamplingConfig, document: str, cell: Cell) -> None:
        parts = [str(sampling.seed), document, repr(cell.temperature), str(cell.sample)]
        if sampling.noise == "independent" and cell.span:
            parts.append(str(cell.span))
        digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).digest()
        self._bits = np.random.Philox(key=int.from_bytes(digest, "little"))
        self._block = np.empty(0)
        self._start = 0

    def uniform(self, step: int) -> float:
        """Returns the uniform in [0, 1) of generation step ``step``; steps must not go back a block."""
        while step >= self._start + len(self._block):
            self._start += len(self._block)
            raw = np.asarray(self._bits.random_raw(BLOCK), dtype=np.uint64)
            self._block = (raw >> np.uint64(11)) * 2.0**-53
        return float(self._block[step - self._start])
