"""Rows from the papers: what their figures and code say comes out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from eglr_selectors import parse_pool, select
from eglr_selectors.estimators import pass_at_k
from pool_builders import texts_pool

ROWS = json.loads(Path(__file__).with_name("worked_examples.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["selector"])
def test_a_paper_is_followed(row: dict) -> None:
    chosen = select(texts_pool(row["answers"]), row["selector"])
    assert (chosen.answer, chosen.rollouts) == (row["answer"], row["rollouts"]), row["source"]


@pytest.mark.parametrize(("n", "c", "k"), [(100, 7, 10), (64, 0, 8), (64, 60, 8), (200, 1, 100), (5, 2, 1)])
def test_pass_at_k_is_the_product_of_its_paper(n: int, c: int, k: int) -> None:
    # Chen et al. 2021, arXiv 2107.03374, figure 3: the numerically stable product
    stable = 1.0 if n - c < k else 1 - np.prod(1 - k / np.arange(n - c + 1, n + 1))
    parsed = parse_pool(texts_pool(["1"] * c + ["2"] * (n - c)), "1")
    assert pass_at_k([parsed], k).mean == pytest.approx(stable, abs=1e-12)
