"""The verifiers that come with the library, registered without loading what they need."""

from __future__ import annotations

from importlib import import_module

from eglr_selectors.verifiers.registry import ScoreFunction, register_verifier


@register_verifier("callable")
def function(*, target: str) -> ScoreFunction:
    """Any Python function of a problem and its rollouts, named as ``module:function``."""
    module, _, name = target.partition(":")
    if not module or not name:
        raise ValueError(f"target={target!r}: expected module:function")
    return getattr(import_module(module), name)
