"""A verifier that tests name by its module."""

from __future__ import annotations

from collections.abc import Sequence

from eglr_selectors import Rollout


def last(problem: str, rollouts: Sequence[Rollout]) -> list[float]:
    """Scores later rollouts higher."""
    return [float(i) for i in range(len(rollouts))]
