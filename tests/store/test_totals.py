"""What a store's pools cost stands in its manifest, whoever wrote last, and never says a wrong sum."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from eglr_selectors import RolloutPool
from eglr_selectors.estimators import unit_costs
from stored_runs import ANSWERS, MANIFEST, run_tiny, small_head, small_pool, write_small
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.store import Manifest, StoreWriter, read_store
from lm_eval_eglr.store.manifest import NAME


def verified(folder: Path, code: int = 0) -> dict:
    result = CliRunner().invoke(app, ["verify-store", str(folder), "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_the_manifest_ends_with_the_sums_of_all_pools(tmp_path: Path) -> None:
    write_small(tmp_path)
    totals = read_store(tmp_path).manifest.totals
    assert totals is not None
    assert (totals.pools, totals.rollouts, totals.generated_tokens) == (5, 30, 5 * 39)
    assert (totals.cost.flops, totals.cost.plain_flops, totals.cost.rows) == (5e6, 1e7, 150)
    report = verified(tmp_path)
    assert (report["manifest_totals"], report["flops"], report["tokens"]) == ("current", 5e6, 195)


def test_a_pool_of_unknown_cost_is_counted_as_such(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path)
    with writer.writing(MANIFEST):
        writer.append(small_head(0), replace(small_pool(ANSWERS[0]), cost=None))
        writer.append(small_head(1), small_pool(ANSWERS[1]))
    totals = Manifest.read(tmp_path).totals
    assert totals is not None
    assert (totals.pools, totals.without_cost, totals.cost.flops) == (2, 1, 1e6)
    shown = CliRunner().invoke(app, ["verify-store", str(tmp_path)]).stdout
    assert "1e+06 FLOPs (1 pools of unknown cost not counted)" in shown


def test_tokens_decided_by_rounding_are_summed_up(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path)
    with writer.writing(MANIFEST):
        for number, ties in enumerate((3, 0, 4)):
            first, *others = small_pool(ANSWERS[number]).rollouts
            assert first.telemetry is not None
            tied = replace(first, telemetry=replace(first.telemetry, ties=ties))
            writer.append(small_head(number), replace(small_pool(ANSWERS[number]), rollouts=(tied, *others)))
    assert verified(tmp_path)["ties"] == 7
    assert "7 tokens decided by rounding" in CliRunner().invoke(app, ["verify-store", str(tmp_path)]).stdout


def test_nothing_is_said_of_the_rounding_of_texts_from_elsewhere(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path)
    with writer.writing(MANIFEST):
        writer.append(small_head(0), RolloutPool.from_texts(["1", "2"]))
    assert verified(tmp_path)["ties"] is None
    assert "rounding" not in CliRunner().invoke(app, ["verify-store", str(tmp_path)]).stdout


def test_whichever_process_ends_last_sums_up_all(tmp_path: Path) -> None:
    first, second = StoreWriter(tmp_path), StoreWriter(tmp_path, rank=1)
    with second.writing(MANIFEST):
        with first.writing(MANIFEST):
            second.append(small_head(1), small_pool(ANSWERS[1]))
            first.append(small_head(0), small_pool(ANSWERS[0]))
        early = Manifest.read(tmp_path).totals
        assert early is not None
        assert early.pools == 2
        second.append(small_head(2), small_pool(ANSWERS[2]))
    late = Manifest.read(tmp_path).totals
    assert late is not None
    assert late.pools == 3


def test_a_run_that_died_leaves_totals_that_name_an_earlier_state(tmp_path: Path) -> None:
    write_small(tmp_path, ANSWERS[:2])
    before = (tmp_path / NAME).read_bytes()
    writer = StoreWriter(tmp_path)
    with writer.writing(MANIFEST):
        writer.append(small_head(2), small_pool(ANSWERS[2]))
    (tmp_path / NAME).write_bytes(before)  # as a kill before the end of the run leaves it
    report = verified(tmp_path)
    assert (report["manifest_totals"], report["pools"], report["flops"]) == ("earlier", 3, 3e6)
    with StoreWriter(tmp_path).writing(MANIFEST):
        pass
    assert verified(tmp_path)["manifest_totals"] == "current"


def test_totals_that_are_not_the_sums_are_damage(tmp_path: Path) -> None:
    write_small(tmp_path)
    manifest = Manifest.read(tmp_path)
    assert manifest.totals is not None
    replace(manifest, totals=replace(manifest.totals, rollouts=31)).write(tmp_path, ".0.part")
    assert "are not the sums" in verified(tmp_path, code=1)["problems"][0]


def test_fingerprint_and_versions_stay_as_they_were(tmp_path: Path) -> None:
    write_small(tmp_path)
    with StoreWriter(tmp_path).writing(Manifest(MANIFEST.fingerprint, {"python": "4"})):
        pass
    kept = Manifest.read(tmp_path)
    assert (kept.fingerprint, kept.versions) == (MANIFEST.fingerprint, MANIFEST.versions)


def test_a_run_whose_totals_cannot_be_written_still_ends_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = StoreWriter(tmp_path)
    with caplog.at_level(logging.WARNING), writer.writing(MANIFEST):
        writer.append(small_head(0), small_pool(ANSWERS[0]))
        path = next((tmp_path / "pools").iterdir())
        sound = path.read_bytes()
        path.write_bytes(sound[:-1])
    assert "its totals could not be written" in caplog.text
    path.write_bytes(sound)
    assert verified(tmp_path)["manifest_totals"] == "none"


def test_what_a_unit_of_work_costs_is_stored_and_not_summed_up(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path)
    with writer.writing(MANIFEST):
        for number in range(2):
            pool = small_pool(ANSWERS[number])
            assert pool.cost is not None
            cost = replace(pool.cost, flops_per_layer_token=7.0, flops_per_head_evaluation=11.0)
            writer.append(small_head(number), replace(pool, cost=cost))
    documents = read_store(tmp_path).documents("toy")
    units = unit_costs([document.parsed for document in documents])
    assert units is not None
    assert (units.layer_token, units.head_evaluation) == (7.0, 11.0)
    totals = json.loads((tmp_path / NAME).read_bytes())["totals"]
    assert "flops_per_layer_token" not in totals["cost"]
    assert verified(tmp_path)["manifest_totals"] == "current"


def test_a_run_stores_what_a_unit_of_work_costs(tiny: Path) -> None:
    run_tiny(tiny, tiny / "costed", limit=1)
    [stored] = read_store(tiny / "costed").pools
    cost = stored.pool.cost
    assert cost is not None
    layers = cost.plain_layer_tokens + cost.recursion_layer_tokens
    work = layers * cost.flops_per_layer_token + cost.head_evaluations * cost.flops_per_head_evaluation
    assert work == pytest.approx(cost.flops)
    assert cost.flops_per_layer_token > 0
