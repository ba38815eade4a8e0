"""``pass@k``, ``maj@k`` and any selector at k are rows of the live table, equal to those of the store."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "store"))
from stored_runs import make_tiny
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app

NAMES = ["majority", "pass@1", "pass@4", "maj@2", "best_of_n@2"]


def test_live_figures_are_those_of_the_store(tmp_path: Path) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    from lm_eval_eglr.harness import plugin

    make_tiny(tmp_path)
    plugin.install()
    results = lm_eval.simple_evaluate(
        model="hf-eglr",
        model_args={
            "pretrained": str(tmp_path / "model"),
            "rollouts": str(tmp_path / "store"),
            "spans": "0:2",
            "temperatures": "0:0.7x2",
            "device": "cpu",
            "dtype": "float32",
        },
        tasks=["toy_eglr"],
        task_manager=TaskManager(
            include_path=str(tmp_path / "tasks"),
            include_defaults=False,
            metadata={"selectors": ",".join(NAMES)},
        ),
        bootstrap_iters=0,
    )["results"]["toy_eglr"]
    arguments = ["select", str(tmp_path / "store"), "--selector", ",".join(NAMES), "--json"]
    printed = CliRunner().invoke(app, arguments)
    rows = {row["strategy"]: row for row in json.loads(printed.stdout)["strategies"]}
    assert list(rows) == NAMES
    for name, row in rows.items():
        label = f"{name} (uses reference)" if name.startswith("pass") else name
        assert float(results[f"exact_match,{label}"]) == pytest.approx(row["value"])


def test_a_figure_that_cannot_be_is_refused_before_the_model_loads() -> None:
    from lm_eval_eglr.harness.task import chosen_selectors

    assert chosen_selectors("majority,pass@4") == ["majority", "pass@4"]
    for wrong in ("pass@0", "nothing@4", "pass@k"):
        with pytest.raises(ValueError, match=wrong.partition("@")[0]):
            chosen_selectors(wrong)
