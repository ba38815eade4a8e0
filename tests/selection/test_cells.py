"""Coordinates: their text, their order, and which depth axis they are on."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
from eglr_selectors import Cell, Rollout, RolloutPool, rollout_from_record

WRITTEN = {
    "L0/T0#0": Cell(),
    "L4/T0.7#1": Cell(4, 0.7, 1),
    "R8/T0.7#1": Cell(span=8, temperature=0.7, sample=1, axis="R"),
    "R32/T?#3": Cell(32, None, 3, axis="R"),
    "L0/T1e-05#2@3.1/12.2": Cell(0, 1e-5, 2, ((3, 1), (12, 2))),
    "R4/T0#1@12.1": Cell(4, 0.0, 1, ((12, 1),), axis="R"),
}


@pytest.mark.parametrize(("text", "cell"), WRITTEN.items())
def test_a_coordinate_is_written_and_read_back(text, cell) -> None:
    assert str(cell) == text
    assert Cell.parse(text) == cell
    assert pickle.loads(pickle.dumps(cell)) == cell
    record = json.loads(json.dumps(RolloutPool((Rollout("4", cell),)).to_records()[0]))
    assert rollout_from_record(record).cell == cell
    assert ("axis" in record["cell"]) == (cell.axis == "R"), "records of axis L are those of older versions"


@pytest.mark.parametrize("text", ["", "L4", "M4/T0#0", "L4/T-1#0", "R0/T0#0", "l4/T0#0", "L4/T0#0@"])
def test_what_is_no_coordinate_is_refused(text) -> None:
    with pytest.raises(ValueError, match=r"^(cell|span)="):
        Cell.parse(text)


def test_the_axis_is_part_of_what_a_cell_is() -> None:
    recursed, recurrent = Cell(4, 0.7), Cell(4, 0.7, axis="R")
    assert recursed != recurrent
    assert len({recursed, recurrent, replace(recurrent, axis="L")}) == 2
    assert recursed.depth == recurrent.depth == 4


def test_cells_sort_in_grid_order() -> None:
    cells = [Cell(level, t, i, axis="R") for level in (2, 16) for t in (None, 0.0, 0.7) for i in (0, 1)]
    assert sorted(set(cells)) == cells


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axis": "X"}, "axis='X': expected one of L, R"),
        ({"axis": "r", "span": 4}, "axis='r': expected one of L, R"),
        ({"axis": "R"}, "span=0: expected a whole number of at least 1"),
        ({"axis": "R", "span": 2.5}, "span=2.5: expected a whole number of at least 1"),
    ],
)
def test_levels_that_an_axis_does_not_have_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Cell(**options)
