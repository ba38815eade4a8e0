"""The tables of docs/results.md are what the stores of the replication say, where the stores are present."""

from __future__ import annotations

import sys

import pytest
from markdown_blocks import ROOT

sys.path.insert(0, str(ROOT / "docs" / "building"))

from evidence import MARK, PAGE, STORES, evidence_folder, filled

from lm_eval_eglr.study.tables import TABLES


def test_every_mark_names_stores_and_a_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    marks = MARK.findall(page)
    assert len(marks) == page.count("<!-- evidence:") == page.count("<!-- end -->")
    for stores, table in marks:
        assert stores in STORES
        assert table in (*TABLES, "verdict")


def test_the_tables_are_those_of_the_stores() -> None:
    folder = evidence_folder()
    if folder is None:
        pytest.skip("no stores of the replication beside the checkout; EGLR_SHARED_DIR may name them")
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, folder) == page, "python docs/building/evidence.py writes the tables anew"
