"""How the rollouts of a prompt are chosen: a whole grid, samples, branches, or a grid opened bit by bit."""

from lm_eval_eglr.decoding.strategies.course import Course
from lm_eval_eglr.decoding.strategies.courses import course_of
from lm_eval_eglr.decoding.strategies.options import (
    STRATEGIES,
    AdaptiveGrid,
    Eager,
    Grid,
    Sample,
    Strategy,
    read_strategy,
)

__all__ = [
    "STRATEGIES",
    "AdaptiveGrid",
    "Course",
    "Eager",
    "Grid",
    "Sample",
    "Strategy",
    "course_of",
    "read_strategy",
]
