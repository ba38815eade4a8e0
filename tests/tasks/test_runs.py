"""Whole runs in one process: our own model class, a backend of one text, output only."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from our_tasks import task_manager

from lm_eval_eglr.harness.model import EGLRLM


def run(model: Any, metadata: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    from lm_eval import simple_evaluate

    manager = task_manager(**(metadata or {}))
    results = simple_evaluate(model=model, tasks=["demo_eglr"], task_manager=manager, limit=2, **options)
    assert results is not None
    return results


def test_our_model_answers_in_the_completion_form(spoken_model: Path) -> None:
    model = EGLRLM(str(spoken_model), dtype="float32", device="cpu", spans="0:1", temperatures="0:0.7")
    results = run(model, num_fewshot=2, gen_kwargs="max_gen_toks=8")
    row = results["results"]["demo_eglr"]
    assert not math.isnan(row["exact_match,greedy"])
    assert 0 <= row["truncated,pool"] <= 1
    assert results["n-shot"]["demo_eglr"] == 2
    pool = next(sample for sample in results["samples"]["demo_eglr"] if sample["filter"] == "pool")
    assert pool["cells"] == ["L0/T0#0", "L0/T0.7#0", "L1/T0#0", "L1/T0.7#0"]
    assert pool["arguments"][0][0].count("Problem: ") == 3


def test_a_backend_of_one_text_is_a_pool_of_one() -> None:
    row = run("dummy", {"selectors": "majority,oracle"})["results"]["demo_eglr"]
    assert row["exact_match,majority"] == row["exact_match,oracle (uses reference)"] == 0.0
    assert row["no_answer,pool"] == 1.0


def test_predict_only_scores_nothing() -> None:
    results = run("dummy", {"selectors": "majority"}, predict_only=True)
    assert results["results"]["demo_eglr"]["bypass,majority"] == 999
    assert not [key for key in results["results"]["demo_eglr"] if key.startswith("exact_match")]
