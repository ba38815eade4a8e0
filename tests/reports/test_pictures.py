"""The page's figures as files."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import chromium
from page_stores import write_grid
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["svg", "png"])
def test_every_figure_is_a_file(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("kaleido", reason="figures are not tested: no kaleido")
    with chromium():
        pass
    store = write_grid(tmp_path / "store", 4, 8)
    arguments = ["report", str(store), "-o", str(tmp_path / "page.html"), "--picture", kind]
    result = CliRunner().invoke(app, [*arguments, "--figures", str(tmp_path / "figures")])
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "figures").iterdir())
    assert [path.stem.rsplit("-", 1)[1] for path in files] == sorted(
        ["grid", "axes", "pareto", "curves", "recursion", "entropy"]
    )
    assert all(path.stat().st_size > 2000 for path in files)
