"""Whether an answer is of the form that a benchmark asks for."""

from __future__ import annotations

from eglr_selectors.grading.arithmetic import exact
from eglr_selectors.grading.numeric import approximate
from eglr_selectors.grading.reading import Choice, Named, Reading, Value, Words
from eglr_selectors.grading.rules import Form


def has_form(reading: Reading, form: Form) -> bool:
    """Returns whether a reading is an integer, a number or a text, if that is asked for."""
    if form == "any":
        return True
    if isinstance(reading, Named):
        return has_form(reading.content, form)
    if isinstance(reading, Choice):
        return form == "text" or (reading.content is not None and has_form(reading.content, form))
    if form == "text":
        return isinstance(reading, Words | Value)
    if not isinstance(reading, Value):
        return False
    try:
        value = exact(reading.tree)
    except ArithmeticError:
        return form == "number" and approximate(reading.tree) == approximate(reading.tree)
    return form == "number" or value.denominator == 1
