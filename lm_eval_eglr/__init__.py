"""Entropy-gated latent recursion for EleutherAI's lm-evaluation-harness."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # Read when it is asked for: the version stands in pyproject.toml only, and every start should be quick.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("lm-eval-eglr")
