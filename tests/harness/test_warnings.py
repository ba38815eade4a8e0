"""What hf-eglr says of a run that went on, though its user would want to know."""

from __future__ import annotations

import logging

import pytest
from saved_model import evaluate_tiny


@pytest.mark.parametrize(("threshold", "warned"), [(0.01, True), (50, False)])
def test_a_gate_that_is_mostly_open_is_warned_of(threshold, warned, tiny_folder, caplog):
    with caplog.at_level(logging.WARNING):
        evaluate_tiny(tiny_folder, f"spans=0:1,temperatures=0,entropy_threshold={threshold}", tokens=8)
    lines = [r.getMessage() for r in caplog.records if "the gate was open" in r.getMessage()]
    assert len(lines) == warned
    for line in lines:
        assert "(entropy_threshold=0.01)" in line
        assert "eglr calibrate" in line
