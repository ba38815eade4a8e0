"""What a notebook shows of a pool: a line, and the matrix of its answers; cells by their coordinates."""

from __future__ import annotations

import pytest
from eglr_selectors import Cell, Rollout, RolloutPool, parse_pool
from pool_builders import grid_pool, texts_pool

# spans 0 and 2, temperatures 0, 0.7, 0.7
ANSWERS = ["1", "1", "2", "1", "<b>3", None]


def test_a_pool_is_said_in_a_line() -> None:
    pool = grid_pool(ANSWERS)
    for shown in (repr(pool), repr(pool[0]), repr(parse_pool(pool, "1"))):
        assert len(shown) < 160
        assert "\n" not in shown
    assert "6 rollouts; spans 0, 2; temperatures 0, 0.7" in repr(pool)
    assert "answers 1 × 3" in repr(parse_pool(pool, "1"))
    assert "reference" not in repr(parse_pool(pool))
    long = Rollout("so " * 1000 + r"\boxed{7}", Cell(4, 0.7, 1), "stop", tuple(range(900)))
    assert repr(long).startswith("Rollout(L4/T0.7#1, stop, 900 tokens, '…")
    assert repr(long).endswith(r"\\boxed{7}')")


def test_cells_are_found_by_span_and_temperature() -> None:
    pool = grid_pool(ANSWERS)
    assert [rollout.cell for rollout in pool[2, 0.7]] == [Cell(2, 0.7, 0), Cell(2, 0.7, 1)]
    assert pool[2, 0.7, 1] is pool[5]
    assert pool[2, 0.7].prompt == pool.prompt
    parsed = parse_pool(pool, "1")
    assert parsed[0, 0.7].correct == parsed.correct[1:3]
    assert parsed[0, 0.7, 1] is pool[2]
    for index in ((1, 0.7), (0, 0.5), (0, 0.7, 2)):
        with pytest.raises(KeyError, match=r"spans 0, 2; temperatures 0, 0\.7"):
            pool[index]
    assert pool[1:3] == pool.rollouts[1:3]


def test_the_matrix_has_right_answers_green_and_runs_nothing() -> None:
    parsed = parse_pool(grid_pool(ANSWERS), "1")
    shown = parsed._repr_html_()
    assert shown.count("✓") == shown.count("rgba(46,160,67") == 3
    assert shown.count("<tr>") == 3
    assert "<th>L = 2</th>" in shown
    assert "<th>T = 0.7 #1</th>" in shown
    assert "the answer is 1" in shown
    assert "<b>" not in shown
    assert "<script" not in parse_pool(texts_pool(["</td><script>alert(1)"]))._repr_html_()
    blind = parsed.pool._repr_html_()
    assert "✓" not in blind
    assert blind.count("<td>") == 6


def test_texts_without_a_grid_are_rows_of_answers() -> None:
    shown = parse_pool(texts_pool(["5"] * 20), "5")._repr_html_()
    assert (shown.count("<tr>"), shown.count("<td>"), shown.count("✓")) == (2, 20, 20)
    assert "temperatures" not in repr(RolloutPool.from_texts(["5"]))
    with pytest.raises(KeyError, match="no grid"):
        texts_pool(["5"])[0, 0.7]
