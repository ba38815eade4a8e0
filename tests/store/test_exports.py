"""Exports: whole stores that come back the same, training rows, thresholds, fitted verifiers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas
import pytest
from eglr_selectors import Cell, Rollout, RolloutPool, Telemetry, select
from stored_runs import MANIFEST, import_lines, make_tiny, small_head, write_small
from typer.testing import CliRunner

from lm_eval_eglr.calibration import calibrate
from lm_eval_eglr.cli.app import app
from lm_eval_eglr.store import StoreError, StoreWriter, read_store
from lm_eval_eglr.store.training import group_advantages


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_exported_and_imported_a_store_is_the_same(tmp_path: Path) -> None:
    store = write_small(tmp_path / "store")
    run("export", store, "--format", "jsonl")
    assert import_lines(tmp_path / "store.jsonl", tmp_path / "again") == 5
    first, again = read_store(store), read_store(tmp_path / "again")
    assert again.pools == first.pools
    for one, other in zip(first.documents("toy"), again.documents("toy"), strict=True):
        for selector in ("majority", "entropy_weighted", "best_of_n", "oracle"):
            assert select(one.parsed, selector) == select(other.parsed, selector)
    (tmp_path / "bad.jsonl").write_text('{"task": 1}\n')
    with pytest.raises(StoreError, match="line 1: not a rollout"):
        import_lines(tmp_path / "bad.jsonl", tmp_path / "never")


def test_training_rows_have_rewards_and_group_relative_advantages(tmp_path: Path) -> None:
    telemetry = Telemetry(token_logprobs=(-0.9, -0.8), token_sampling_logprobs=(-0.5, -0.25))
    pool = RolloutPool(
        (
            Rollout(r"\boxed{1}", Cell(), "stop", (3, 4), telemetry),
            Rollout("no answer", Cell(0, 0.7), "length", (3,)),
        ),
        "One?",
    )
    writer = StoreWriter(tmp_path / "store")
    with writer.writing(MANIFEST):
        writer.append(small_head(0), pool)
        writer.append(small_head(1, reference=None), pool)
    run("export", tmp_path / "store", "-o", tmp_path / "rows.jsonl")
    first, second = lines(tmp_path / "rows.jsonl")
    assert (first["prompt"], first["prompt_id"], first["reward"]) == ("One?", "toy/0", 1.0)
    assert (first["completion_ids"], first["logprobs"]) == ([3, 4], [-0.5, -0.25])
    assert (second["reward"], second["logprobs"], second["truncated"]) == (0.0, None, True)
    assert first["advantage"] == pytest.approx(0.5 / (math.sqrt(0.5) + 1e-4))
    assert first["advantage"] == -second["advantage"]
    run("export", tmp_path / "store", "--format", "parquet")
    assert len(pandas.read_parquet(tmp_path / "store.parquet")) == 2


def test_the_log_probabilities_of_an_older_version_are_not_taken_for_those_of_the_draw(
    tmp_path: Path,
) -> None:
    traced = Telemetry(token_logprobs=(-0.9, -0.8))
    writer = StoreWriter(tmp_path / "store")
    with writer.writing(MANIFEST):
        writer.append(small_head(0), RolloutPool((Rollout("1", Cell(), "stop", (3, 4), traced),), "One?"))
    arguments = ["export", str(tmp_path / "store"), "-o", str(tmp_path / "rows.jsonl")]
    result = CliRunner().invoke(app, arguments)
    assert "1 were recorded before the log-probabilities of the draw were" in result.stderr
    assert lines(tmp_path / "rows.jsonl")[0]["logprobs"] is None


def test_equal_rewards_have_no_advantage() -> None:
    assert group_advantages([1.0, 1.0, 1.0]) == [0.0, 0.0, 0.0]
    assert group_advantages([1.0]) == [0.0]


def test_the_threshold_gates_the_wanted_share() -> None:
    traced = Telemetry(token_entropies=tuple(i / 10 for i in range(10)))
    found = calibrate([RolloutPool((Rollout("", telemetry=traced),))], 0.2)
    assert (found.threshold, found.gate_rate) == (0.7, 0.2)
    marked = next(line for line in found.histogram().splitlines() if "← τ" in line)
    assert marked.split()[:3] == ["0.3", "–", "1"]
    with pytest.raises(ValueError, match="gate_rate=1: expected a number > 0 and < 1"):
        calibrate([], 1)
    with pytest.raises(ValueError, match="trace=True"):
        calibrate([RolloutPool((Rollout(""),))], 0.2)


def test_calibrate_with_a_model(tmp_path: Path) -> None:
    make_tiny(tmp_path, problems=3)
    arguments = ["--model", tmp_path / "model", "--prompts", tmp_path / "tasks" / "toy.jsonl"]
    found = json.loads(run("calibrate", *arguments, "--max-new-tokens", "16", "--gate-rate", "0.3", "--json"))
    assert found["prompts"] == 3
    assert found["gate_rate"] == pytest.approx(0.3, abs=0.05)
    sampled = run("calibrate", *arguments, "--max-new-tokens", "16", "--temperature", "1.5", "--json")
    assert json.loads(sampled)["entropy_threshold"] != found["entropy_threshold"]
    refused = CliRunner().invoke(app, ["calibrate", "--temperature", "-1"])
    assert refused.exit_code == 2
    assert "temperature=-1.0: expected a number >= 0" in refused.output
    shown = run("calibrate", *arguments, "--max-new-tokens", "8", "--plot", tmp_path / "plot.html")
    assert "← τ" in shown
    assert "entropy_threshold=" in shown
    assert (tmp_path / "plot.html").stat().st_size > 1e6


def test_a_verifier_is_fitted_on_stores(tmp_path: Path) -> None:
    answers = tuple(
        ["1", "1", "2", "1", "2", None] if i % 2 else ["2", "1", "1", "2", "2", "1"] for i in range(8)
    )
    store = write_small(tmp_path / "store", answers)
    report = json.loads(run("fit-verifier", store, "-o", tmp_path / "v.skops", "--folds", "2", "--json"))
    assert report["problems"] == 8
    assert 0 <= report["auroc"] <= 1
    name = f"best_of_n(verifier=\"learned(path='{tmp_path / 'v.skops'}', allow_fitted=True)\")"
    rows = json.loads(run("select", store, "--selector", name, "--json"))["strategies"]
    assert rows[0]["undefined"] == 0


def test_a_distribution_of_certain_tokens_is_more_than_one_bar() -> None:
    entropies = (0.0,) * 50 + (0.002,) * 30 + (0.05,) * 15 + (2.5,) * 5
    traced = Telemetry(token_entropies=entropies)
    found = calibrate([RolloutPool((Rollout("", telemetry=traced),))], 0.05)
    edges, shares = found.bins()
    assert shares.sum() == pytest.approx(1)
    assert edges[-1] >= 2.5
    lines = [line for line in found.histogram().splitlines() if "█" in line]
    assert len(lines) == 4
    [marked] = [line for line in lines if "← τ" in line]
    assert marked.split()[:5] == ["0.03", "–", "0.1", "15.0%", "20.0%"]


def test_a_hub_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for model in ("nobody/nothing", "/nowhere/model"):
        refused = CliRunner().invoke(app, ["calibrate", "--model", model, "--limit", "1"])
        assert refused.exit_code == 2
        assert refused.output.startswith(f"eglr: model='{model}': no such")
        assert refused.output.strip().count("\n") == 0
