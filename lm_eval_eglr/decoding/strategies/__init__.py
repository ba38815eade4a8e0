"""How the rollouts of a prompt are chosen: a whole grid, samples, branches, or a grid opened bit by bit."""

import importlib
import pkgutil

from lm_eval_eglr.decoding.strategies.strategy import (
    CONSTRUCTOR_OPTIONS,
    RECURRENT_OPTIONS,
    RECURSION_OPTIONS,
    REMOVED_OPTIONS,
    SAMPLING_OPTIONS,
    STRATEGIES,
    DecodingPlan,
    Options,
    Strategy,
    options_of,
    read_options,
    strategy_name,
    unset_by_default,
)

# In the order in which they are listed; a file that is new comes last.
_FIRST = ("grid", "eager", "adaptive_grid")
for _name in dict.fromkeys((*_FIRST, *(module.name for module in pkgutil.iter_modules(__path__)))):
    importlib.import_module(f"{__name__}.{_name}")

STRATEGY_OPTIONS = tuple(dict.fromkeys(option for name in STRATEGIES for option in options_of(name)))

__all__ = [
    "CONSTRUCTOR_OPTIONS",
    "RECURRENT_OPTIONS",
    "RECURSION_OPTIONS",
    "REMOVED_OPTIONS",
    "SAMPLING_OPTIONS",
    "STRATEGIES",
    "STRATEGY_OPTIONS",
    "DecodingPlan",
    "Options",
    "Strategy",
    "read_options",
    "strategy_name",
    "unset_by_default",
]
