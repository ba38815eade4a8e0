"""Any backend can give the pool: here lm_eval's own ``hf`` with repeats, under every selector."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from eglr_selectors import RolloutPool, Rules, get_selector, select
from our_tasks import task_manager

from lm_eval_eglr.harness.task import chosen_selectors

REPEATS = 5
# Plain texts have neither telemetry nor scores nor cells of a grid.
UNDEFINED = {
    "best_of_n",
    "weighted_vote",
    "entropy_weighted",
    "logprob_weighted",
    "deepconf",
    "self_certainty",
    "greedy",
    "layer_oracle",
}


@pytest.fixture(scope="module")
def results(spoken_model: Path) -> dict[str, Any]:
    from lm_eval import simple_evaluate

    return simple_evaluate(
        model="hf",
        model_args=f"pretrained={spoken_model},dtype=float32",
        tasks=["demo_eglr"],
        task_manager=task_manager(repeats=REPEATS),
        gen_kwargs="do_sample=True,temperature=0.7,max_gen_toks=12",
        device="cpu",
        limit=6,
    )


def samples_of(results: dict[str, Any], row: str) -> list[dict[str, Any]]:
    return [sample for sample in results["samples"]["demo_eglr"] if sample["filter"] == row]


def test_majority_is_what_select_says_of_the_same_texts(results: dict[str, Any]) -> None:
    samples = samples_of(results, "majority")
    assert len(samples) == 6
    options: dict[str, Any] = {
        "rules": Rules.named("integer"),
        "fallbacks": ("hash", "phrase", "last_number"),
    }
    for sample in samples:
        (texts,) = sample["resps"]
        assert len(texts) == REPEATS
        assert len(set(texts)) > 1
        ours = select(RolloutPool.from_texts(texts), "majority", **options)
        assert sample["answer"] == ours.answer
        assert sample["rollout"] == ours.index
        assert sample["exact_match"] == float(sample["answer"] == sample["target"])
    mean = sum(sample["exact_match"] for sample in samples) / len(samples)
    assert results["results"]["demo_eglr"]["exact_match,majority"] == pytest.approx(mean)


def test_every_selector_has_a_row_and_oracles_say_so(results: dict[str, Any]) -> None:
    rows = {
        key.removeprefix("exact_match,")
        for key in results["results"]["demo_eglr"]
        if key.startswith("exact_match,")
    }
    for name in chosen_selectors(None):
        row = f"{name} (uses reference)" if get_selector(name).uses_reference else name
        undefined = name in UNDEFINED
        assert (row in rows) is not undefined, name
    assert {"majority", "first", "oracle (uses reference)"} <= rows


def test_a_selector_that_is_asked_for_and_undefined_is_nan_and_nothing_breaks(spoken_model: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.utils import make_table

    results = simple_evaluate(
        model="hf",
        model_args=f"pretrained={spoken_model},dtype=float32",
        tasks=["demo_eglr"],
        task_manager=task_manager(repeats=2, selectors="greedy,majority"),
        gen_kwargs="do_sample=True,temperature=0.7,max_gen_toks=12",
        device="cpu",
        limit=2,
    )
    row = results["results"]["demo_eglr"]
    assert math.isnan(row["exact_match,greedy"])  # plain texts do not say which of them is greedy
    assert math.isnan(row["exact_match_stderr,greedy"])
    assert math.isnan(row["truncated,pool"])  # this backend does not say why a text ended
    assert {sample["verdict"] for sample in samples_of(results, "greedy")} == {"undefined"}
    greedy = next(line for line in make_table(results).splitlines() if "|greedy" in line)
    assert greedy.count("NaN") == 2
    json.dumps(results["results"])


@pytest.mark.parametrize(("options", "warned"), [("do_sample=False", True), ("do_sample=True", False)])
def test_equal_repeats_of_any_backend_are_warned_of(
    spoken_model: Path, caplog: pytest.LogCaptureFixture, options: str, warned: bool
) -> None:
    from lm_eval import simple_evaluate

    simple_evaluate(
        model="hf",
        model_args=f"pretrained={spoken_model},dtype=float32",
        tasks=["demo_eglr"],
        task_manager=task_manager(repeats=3),
        gen_kwargs=f"{options},temperature={0.9 if 'True' in options else 0.0},max_gen_toks=12",
        device="cpu",
        limit=2,
    )
    assert ("all 3 texts of each of the first 2 problems are equal" in caplog.text) is warned


def test_samples_carry_answers_and_verdicts(results: dict[str, Any]) -> None:
    for pool, oracle in zip(
        samples_of(results, "pool"), samples_of(results, "oracle (uses reference)"), strict=True
    ):
        assert len(pool["answers"]) == len(pool["verdicts"]) == len(pool["cells"]) == REPEATS
        assert set(pool["verdicts"]) <= {"correct", "wrong", "no_answer", "ungraded"}
        assert pool["no_answer"] == pool["answers"].count(None) / REPEATS
        assert oracle["exact_match"] == float("correct" in pool["verdicts"])
    verdicts = {verdict for pool in samples_of(results, "pool") for verdict in pool["verdicts"]}
    assert {"correct", "wrong"} <= verdicts


def test_the_results_name_version_prompt_and_rules(results: dict[str, Any]) -> None:
    metadata = results["configs"]["demo_eglr"]["metadata"]
    assert metadata["version"] == 2.0
    assert metadata["rules"] == "integer"
    assert len(metadata["prompt_sha256"]) == 16
    assert results["versions"]["demo_eglr"] == 2.0
