"""The selectors that come with the library, one module per family; importing it registers them."""

from eglr_selectors.strategies import (
    best_of_n,
    cells,
    confidence,
    deepconf,
    oracles,
    self_certainty,
    sequential,
    votes,
)

__all__ = [
    "best_of_n",
    "cells",
    "confidence",
    "deepconf",
    "oracles",
    "self_certainty",
    "sequential",
    "votes",
]
