"""Safe grading of mathematical answers: find the answer, compare it with a gold, sort into classes."""

from eglr_selectors.grading.answer import Answer, extract
from eglr_selectors.grading.classes import classes, classes_many
from eglr_selectors.grading.grade import grade, grade_many
from eglr_selectors.grading.rules import DEFAULT, Rules
from eglr_selectors.grading.verdict import UngradedError, Verdict

__all__ = [
    "DEFAULT",
    "Answer",
    "Rules",
    "UngradedError",
    "Verdict",
    "classes",
    "classes_many",
    "extract",
    "grade",
    "grade_many",
]
