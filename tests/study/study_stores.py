"""Stores of a small study: grids and plain rollouts whose successes are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from eglr_selectors import Cell, PoolCost, Rollout, RolloutPool, Telemetry
from eglr_selectors.cell import Axis

from lm_eval_eglr.store import Manifest, PoolKey, StoreWriter

SPANS, TEMPERATURES = (0, 2, 4), (0.0, 0.7, 0.7)
WORDS = ["12", " so", "=", " the", "7", " find"]


def cells_of(depths: tuple[int, ...], temperatures: tuple[float, ...], axis: Axis = "L") -> list[Cell]:
    return [
        Cell(depth, temperature, temperatures[:column].count(temperature), axis=axis)
        for depth in depths
        for column, temperature in enumerate(temperatures)
    ]


def write_study(
    folder: Path,
    right: np.ndarray,
    spans: tuple[int, ...] = SPANS,
    temperatures: tuple[float, ...] = TEMPERATURES,
    task: str = "toy",
    axis: Axis = "L",
) -> Path:
    """Writes a store whose pools are right where a matrix ``[problems, cells]`` says so.

    On axis R ``spans`` are numbers of recurrences, of which a token makes all but one.
    """
    cells = cells_of(spans, temperatures, axis)
    recurrent = axis == "R"
    rng = np.random.default_rng(0)
    writer = StoreWriter(folder)
    fingerprint = {"model": "toy/model", "cells": [str(cell) for cell in cells]}
    with writer.writing(Manifest({**fingerprint, **({"axis": "R"} if recurrent else {})})):
        writer.describe_tokens(lambda: WORDS)
        for number, row in enumerate(right):
            rollouts = tuple(
                Rollout(
                    rf"\boxed{{{7 if correct else number % 3}}}",
                    cell,
                    "stop",
                    tuple(rng.integers(0, len(WORDS), 5).tolist()),
                    Telemetry(
                        mean_entropy=0.5,
                        mean_logprob=-float(rng.random()),
                        mean_confidence=5.0,
                        mean_self_certainty=5.0,
                        gated_tokens=0 if recurrent else 2 * int(cell.span > 0),
                        recursions=5 * cell.span - 1 if recurrent else 0,
                        converged_tokens=int(cell.span > 0),
                        changed_tokens=0 if recurrent else int(cell.span > 0),
                        plain_layer_tokens=20,
                        recursion_layer_tokens=cell.span,
                        head_evaluations=5,
                    ),
                )
                for cell, correct in zip(cells, row, strict=True)
            )
            cost = PoolCost(4, 5 * len(cells), 4 * len(cells), 100, 10, 50, 2e9, 3e9)
            head = PoolKey(
                task, number, document=f"{task} {number}", reference="7", fields={"id": str(number)}
            )
            writer.append(head, RolloutPool(rollouts, "How many?", cost))
    return folder
