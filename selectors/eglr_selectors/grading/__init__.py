"""Safe grading of mathematical answers: find the answer, compare it with a gold, sort into classes.

The order of checks is in :mod:`eglr_selectors.grading.checks`.
"""

from eglr_selectors.grading.answer import Answer, extract
from eglr_selectors.grading.classes import Partition, classes, classes_many, partitions
from eglr_selectors.grading.explain import Explanation, explain
from eglr_selectors.grading.grade import grade, grade_many
from eglr_selectors.grading.math_verify_queue import UndecidedPairs, undecided
from eglr_selectors.grading.rules import DEFAULT, Rules
from eglr_selectors.grading.verdict import UngradedError, Verdict

__all__ = [
    "DEFAULT",
    "Answer",
    "Explanation",
    "Partition",
    "Rules",
    "UndecidedPairs",
    "UngradedError",
    "Verdict",
    "classes",
    "classes_many",
    "explain",
    "extract",
    "grade",
    "grade_many",
    "partitions",
    "undecided",
]
