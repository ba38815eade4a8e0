"""The latent state before the first iteration: truncated Gaussian noise that is a function of the position.

A recurrent-depth model begins with noise from a global generator, so that the same prompt would have another
continuation each time, and each batch another one. Here the noise of a position comes from a counter-based
stream (Philox, keyed by the seed): it is the same on every machine, in every batch and in every order.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from lm_eval_eglr.decoding.numerics import on_device


class LatentStream:
    """Truncated Gaussian states by position."""

    def __init__(self, dim: int, std: float, *, bound: float = 3.0, seed: int = 0) -> None:
        """Describes the noise.

        Args:
            dim: Numbers of a state.
            std: Standard deviation of the Gaussian before it is truncated; 0 for zeros.
            bound: Where it is truncated, in standard deviations.
            seed: Key of the stream.
        """
        self._dim = dim
        self._std = std
        self._seed = seed
        self._ends = torch.special.ndtr(torch.tensor([-bound, bound], dtype=torch.float64)).tolist()
        self._bound = bound
        self._table = torch.zeros(0, dim, dtype=torch.float64)
        self._cast: Tensor | None = None

    def states(self, positions: Tensor, like: Tensor) -> Tensor:
        """States of the dtype and device of ``like``: ``[tokens]`` to ``[tokens, dim]``."""
        needed = int(positions.max()) + 1 if len(positions) else 0
        if needed > len(self._table):
            more = range(len(self._table), max(needed, 2 * len(self._table), 64))
            self._table = torch.cat([self._table, torch.stack([self._state(place) for place in more])])
            self._cast = None
        cast = self._cast
        if cast is None or cast.dtype != like.dtype or cast.device != like.device:
            cast = self._cast = self._table.to(like)
        return cast.index_select(0, on_device(positions, cast.device))

    def _state(self, position: int) -> Tensor:
        """The state of one position, ``[dim]``, in fp64."""
        if not self._std:
            return torch.zeros(self._dim, dtype=torch.float64)
        digest = hashlib.blake2b(f"latent\x1f{self._seed}\x1f{position}".encode(), digest_size=16).digest()
        raw = np.asarray(np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(self._dim))
        uniforms = torch.from_numpy(((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)
        low, high = self._ends
        normal = torch.special.ndtri(low + uniforms * (high - low))
        return normal.clamp(-self._bound, self._bound) * self._std
