"""What the grader could not decide is remembered beside the pools, for that store and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eglr_selectors.grading import undecided
from stored_runs import ANSWERS, write_small
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.store import StoreError, read_store
from lm_eval_eglr.store.atomic_files import with_checksum
from lm_eval_eglr.store.undecided import NAME, read_undecided, remembered_pairs

PAIR = ("x", "y")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    undecided.clear()


def test_a_new_pair_is_kept_and_known_to_the_next_process(tmp_path: Path) -> None:
    with remembered_pairs(tmp_path):
        undecided.add(PAIR, "ran out of time")
    assert read_undecided(tmp_path) == [["x", "y", "ran out of time"]]
    undecided.clear()  # as a new process begins
    with remembered_pairs(tmp_path):
        assert PAIR in undecided
        undecided.add(("a", "b"), "ran out of memory")
    assert [row[:2] for row in read_undecided(tmp_path)] == [["a", "b"], ["x", "y"]]


def test_pairs_of_one_store_do_not_decide_in_another(tmp_path: Path) -> None:
    with remembered_pairs(tmp_path):
        undecided.add(PAIR, "ran out of time")
    undecided.clear()
    with remembered_pairs(tmp_path):
        pass
    assert PAIR not in undecided
    (tmp_path / "other").mkdir()
    with remembered_pairs(tmp_path / "other"):
        assert PAIR not in undecided
    assert not (tmp_path / "other" / NAME).exists()


def test_a_store_is_graded_with_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the reader: pairs that the grader gives up on while documents are parsed are written."""
    from lm_eval_eglr.store import reader

    parse = reader.parse_documents

    def giving_up(*arguments: object, **options: object) -> object:
        undecided.add(PAIR, "ran out of time")
        return parse(*arguments, **options)  # type: ignore[arg-type]

    store = write_small(tmp_path / "store", ANSWERS[:2])
    read_store(store).documents("toy")
    assert not (store / NAME).exists()
    monkeypatch.setattr(reader, "parse_documents", giving_up)
    read_store(store).documents("toy")
    assert read_undecided(store) == [["x", "y", "ran out of time"]]


def test_another_math_verify_tries_again(tmp_path: Path) -> None:
    with remembered_pairs(tmp_path):
        undecided.add(PAIR, "ran out of time")
    content = json.loads((tmp_path / NAME).read_bytes())
    del content["checksum"]
    (tmp_path / NAME).write_bytes(with_checksum({**content, "math-verify": "0"}))
    assert read_undecided(tmp_path) == []


@pytest.mark.parametrize("pairs", [None, "xyz", [1], [["a", "b"]], [["a", "b", 3]]])
def test_a_damaged_or_strange_file_is_named_and_tried_again(pairs: object, tmp_path: Path) -> None:
    store = write_small(tmp_path / "store", ANSWERS[:2])
    (store / NAME).write_bytes(with_checksum({"math-verify": "0", "pairs": pairs}))
    with pytest.raises(StoreError, match="pairs: expected lists of three texts"):
        read_undecided(store)
    assert CliRunner().invoke(app, ["verify-store", str(store)]).exit_code == 1
    assert len(read_store(store).documents("toy")) == 2
