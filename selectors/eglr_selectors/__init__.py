"""Selection from pools of rollouts: pools, answers, selectors. Imports neither torch nor lm_eval."""

from typing import Any

from eglr_selectors.cell import Cell
from eglr_selectors.depth_axis import DepthAxis
from eglr_selectors.grading import (
    Answer,
    Rules,
    UngradedError,
    Verdict,
    classes,
    classes_many,
    extract,
    grade,
    grade_many,
)
from eglr_selectors.metrics import correctness, pool_metrics
from eglr_selectors.parsed import ParsedPool, parse_documents, parse_pool, parse_pools
from eglr_selectors.pool import (
    FinishReason,
    PoolCost,
    Rollout,
    RolloutPool,
    Telemetry,
    rollout_from_record,
)
from eglr_selectors.registry import (
    Selector,
    SelectorInfo,
    available_selectors,
    default_selectors,
    get_selector,
    register_selector,
    select,
)
from eglr_selectors.selection import Selection
from eglr_selectors.specification import split_specifications
from eglr_selectors.voting import choose, undefined, vote

__all__ = [
    "Answer",
    "Cell",
    "DepthAxis",
    "FinishReason",
    "ParsedPool",
    "PoolCost",
    "Rollout",
    "RolloutPool",
    "Rules",
    "Selection",
    "Selector",
    "SelectorInfo",
    "Telemetry",
    "UngradedError",
    "Verdict",
    "available_selectors",
    "choose",
    "classes",
    "classes_many",
    "correctness",
    "default_selectors",
    "extract",
    "get_selector",
    "grade",
    "grade_many",
    "parse_documents",
    "parse_pool",
    "parse_pools",
    "pool_metrics",
    "register_selector",
    "rollout_from_record",
    "select",
    "split_specifications",
    "undefined",
    "vote",
]


def __getattr__(name: str) -> Any:
    # Read when it is asked for: the version stands in pyproject.toml only.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("lm-eval-eglr")
