"""The example notebook runs from its first cell to its last, and the site has it as a page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from markdown_blocks import ROOT, Block
from page_session import PageSession

sys.path.insert(0, str(ROOT / "docs" / "building"))
from example_notebook import NOTEBOOK, code_cells, write_page

CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_every_cell_runs(environment: dict[str, str], workspace: Path, own_registrations: None) -> None:
    session = PageSession(workspace, environment)
    for number, code in enumerate(code_cells()):
        session.run(Block("examples/rollouts.ipynb", number, "python", code))
    assert session.names["select"](session.names["parsed"], "majority").defined
    assert len(session.names["frame"]) == 12 * 16
    assert list((workspace / "runs" / "notebook" / "pools").glob("*.parquet"))


def test_every_cell_has_been_run_in_order() -> None:
    counts = [cell["execution_count"] for cell in CELLS if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1)), "python docs/building/example_notebook.py runs them"


def test_the_page_has_the_cells_and_what_they_show(tmp_path: Path) -> None:
    write_page(tmp_path)
    page = (tmp_path / "tutorials" / "notebook.md").read_text(encoding="utf-8")
    for code in code_cells():
        assert f"```python\n{code}\n```" in page
    for name in ("notebook_1.png", "notebook_2.png"):
        assert f"({name})" in page
        assert (tmp_path / "tutorials" / name).read_bytes().startswith(b"\x89PNG")
    assert "<caption>16 rollouts; the answer is 11</caption>" in page
    assert "✓" in page
    assert "<script" not in page


def test_a_figure_is_one_call(tmp_path: Path) -> None:
    from eglr_selectors import Cell, PoolCost, Rollout, RolloutPool, Telemetry

    from lm_eval_eglr import plots
    from lm_eval_eglr.store import Manifest, PoolKey, StoreWriter, read_store

    def store(name: str, spans: tuple[int, ...]):
        writer = StoreWriter(tmp_path / name)
        with writer.writing(Manifest({"model": "m"})):
            for number in range(4):
                rollouts = tuple(
                    Rollout(
                        rf"\boxed{{{(number + i) % 3}}}",
                        Cell(span, t, s),
                        "stop",
                        (1, 2),
                        Telemetry(mean_entropy=0.1 * i, gated_tokens=int(span > 0), recursions=int(span > 0)),
                    )
                    for i, (span, t, s) in enumerate(
                        (span, t, s) for span in spans for t, s in ((0.0, 0), (0.7, 0), (0.7, 1))
                    )
                )
                key = PoolKey("toy", number, document=f"{number}", reference="1")
                writer.append(key, RolloutPool(rollouts, "p", PoolCost(1, 4, 4, 4, 1, 4, 9.0, 9.0)))
        return read_store(tmp_path / name)

    grid, plain = store("grid", (0, 2)), store("plain", (0,))
    pools = [document.parsed for document in grid.documents("toy")]
    for name in plots.__all__:
        draw = getattr(plots, name)
        assert draw(grid).to_json() == draw(pools).to_json(), name
        assert draw(grid).data
    assert any("plain samples (plain)" in str(trace.name) for trace in plots.curves(grid, plain=plain).data)
    with pytest.raises(ValueError, match="task='other'"):
        plots.grid(grid, "other")
    with pytest.raises(ValueError, match="has no rollouts of span 0"):
        plots.curves(plain, plain=grid)
