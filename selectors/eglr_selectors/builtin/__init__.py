"""The selectors that come with the library, one module per family; importing it registers them."""

from eglr_selectors.builtin import (
    best_of_n,
    confidence,
    deepconf,
    oracles,
    self_certainty,
    sequential,
    single_cell,
    votes,
)

__all__ = [
    "best_of_n",
    "confidence",
    "deepconf",
    "oracles",
    "self_certainty",
    "sequential",
    "single_cell",
    "votes",
]
