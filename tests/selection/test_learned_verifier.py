"""The learned verifier: what it learns, what it refuses, what it is saved as."""

from __future__ import annotations

import json
import math
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eglr_selectors import Cell, Rollout, RolloutPool, Telemetry, parse_pool, select
from eglr_selectors.estimators import accuracy
from eglr_selectors.fitting import fit_verifier
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.verifiers import LearnedVerifier
from eglr_selectors.verifiers.features import FEATURES, features
from pool_builders import boxed, grid_pool, texts_pool

pytest.importorskip("sklearn")


def _pools(count: int, seed: int, benchmark: str) -> list[ParsedPool]:
    """Problems on which right rollouts are surer, and a common wrong answer often has the majority."""
    rng = random.Random(seed)
    pools = []
    for number in range(count):
        rollouts = []
        for i in range(8):
            right = rng.random() < 0.35
            answer = "1" if right else rng.choice(["2", "2", "2", "3", None])
            entropy = rng.gauss(0.4 if right else 1.0, 0.25)
            telemetry = Telemetry(mean_entropy=entropy, mean_logprob=rng.gauss(-1, 0.1))
            tokens = tuple(range(rng.randint(5, 30)))
            rollouts.append(Rollout(boxed(answer), Cell(2 * (i // 4), 0.7, i % 4), "stop", tokens, telemetry))
        pools.append(parse_pool(RolloutPool(tuple(rollouts)), "1", problem=f"{benchmark} {number}"))
    return pools


class Foreign:
    """A type that no verifier is made of."""


@pytest.fixture(scope="module")
def fitted() -> LearnedVerifier:
    return fit_verifier(_pools(60, 1, "algebra"))


@pytest.mark.parametrize("model", ["logistic", "boosting"])
def test_fitted_on_one_benchmark_it_helps_on_another(model, tmp_path: Path) -> None:
    verifier = fit_verifier(_pools(60, 1, "algebra"), model=model, folds=3)
    report = verifier.report
    assert 0.8 < report.auroc <= 1
    assert (report.problems, report.rollouts, report.folds) == (60, 480, 3)
    assert report.gain == report.best_of_n - report.accuracy > 0.2
    assert f"gain {report.gain:+.1%}" in str(report)
    others = _pools(60, 2, "geometry")
    best = accuracy(others, lambda pool: select(pool, "best_of_n", verifier=verifier))
    assert best.mean > accuracy(others, "majority").mean + 0.1
    verifier.save(tmp_path / "verifier.skops")
    text = f"best_of_n(verifier=learned(path={str(tmp_path / 'verifier.skops')!r}))"
    again = accuracy(others, text)
    assert np.array_equal(best.values, again.values)
    assert LearnedVerifier.load(tmp_path / "verifier.skops").report == report


def test_its_figures_are_probabilities(fitted: LearnedVerifier) -> None:
    others = _pools(80, 3, "geometry")
    scores = np.concatenate([fitted.score(pool.problem, pool) for pool in others])
    right = np.array([correct for pool in others for correct in pool.correct])
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores.mean() == pytest.approx(right.mean(), abs=0.05)
    sure = scores > 0.7
    assert right[sure].mean() == pytest.approx(scores[sure].mean(), abs=0.1)


def test_cross_validation_is_not_fooled_by_problems() -> None:
    # a feature that names the problem, and labels that are one coin per problem: nothing to learn
    rng = random.Random(0)
    pools = []
    for number in range(60):
        right = rng.random() < 0.5
        telemetry = Telemetry(mean_entropy=rng.random())
        rollouts = [
            Rollout(boxed("1" if right else "2"), Cell(0, 0.7, i), "stop", (1,), telemetry) for i in range(8)
        ]
        pools.append(parse_pool(RolloutPool(tuple(rollouts)), "1", problem=f"coin {number}"))
    assert abs(fit_verifier(pools, model="boosting").report.auroc - 0.5) < 0.2


def test_the_problems_it_was_fitted_on_are_refused(fitted: LearnedVerifier) -> None:
    seen = _pools(1, 1, "algebra")[0]
    with pytest.raises(ValueError, match="allow_fitted=False"):
        fitted.score(seen.problem, seen)
    with pytest.raises(ValueError, match="fitted on this problem"):
        fitted.score("  algebra\n0 ", seen)
    assert len(replace(fitted, allow_fitted=True).score(seen.problem, seen)) == 8


def test_fitting_twice_gives_the_same(fitted: LearnedVerifier) -> None:
    again = fit_verifier(_pools(60, 1, "algebra"))
    pool = _pools(1, 9, "geometry")[0]
    assert again.report == fitted.report
    assert again.score(pool.problem, pool) == fitted.score(pool.problem, pool)


def test_plain_rollouts_and_empty_pools_are_scored(fitted: LearnedVerifier) -> None:
    pool = _pools(1, 9, "geometry")[0]
    assert fitted.score("new", list(pool)) == pytest.approx(fitted.score("new", pool))
    assert fitted.score("new", parse_pool(RolloutPool(()))) == []
    assert not any(map(math.isnan, fitted.score("new", parse_pool(texts_pool(["1", None])))))


def test_features_do_not_depend_on_the_order() -> None:
    pool = parse_pool(grid_pool(["1", "2", "2", "1", "1", None], mean_entropy=[1, 2, 3, 4, 5, 6]))
    rows = features(pool)
    order = [3, 1, 5, 0, 2, 4]
    assert np.array_equal(rows[order], features(pool.subset(order)), equal_nan=True)
    column = dict(zip(FEATURES, rows.T, strict=True))
    assert list(column["agreement"]) == [0.6, 0.4, 0.4, 0.6, 0.6, 0]
    assert list(column["span_agreement"]) == [1, 0.5, 0.5, 1, 1, 0]
    assert list(column["agreement_rank"]) == [0, 1, 1, 0, 0, 2]
    assert list(column["mean_entropy_in_pool"]) == [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
    assert np.isnan(column["mean_logprob_in_pool"]).all()


def test_no_feature_sees_the_reference() -> None:
    answers = ["1", "2", "2", "1", "1", None]
    known = features(parse_pool(grid_pool(answers), "1"))
    assert np.array_equal(known, features(parse_pool(grid_pool(answers))), equal_nan=True)


def _with_header(path: Path, **changes) -> None:
    """Rewrites what a saved verifier says of itself."""
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    header = json.loads(entries["verifier.json"])
    entries["verifier.json"] = json.dumps({**header, **changes}).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)


def test_a_file_with_foreign_types_is_refused(tmp_path: Path, fitted: LearnedVerifier) -> None:
    path = tmp_path / "foreign.skops"
    replace(fitted, classifier=Foreign()).save(path)
    with pytest.raises(ValueError, match=r"untrusted types .*Foreign"):
        LearnedVerifier.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99, expected 1"),
        ({"sklearn": "0.24.1"}, r"made by scikit-learn 0\.24\.1"),
        ({"features": ["span"]}, "other features"),
    ],
)
def test_a_file_for_another_version_is_refused(tmp_path: Path, fitted, changes, message: str) -> None:
    path = tmp_path / "verifier.skops"
    fitted.save(path)
    _with_header(path, **changes)
    with pytest.raises(ValueError, match=message):
        LearnedVerifier.load(path)


def test_a_file_that_is_something_else_is_refused(tmp_path: Path, fitted: LearnedVerifier) -> None:
    from skops.io import dump

    (tmp_path / "pickle").write_bytes(b"\x80\x04K\x01.")
    dump(fitted.classifier, tmp_path / "bare.skops")
    fitted.save(tmp_path / "whole.skops")
    whole = (tmp_path / "whole.skops").read_bytes()
    (tmp_path / "cut.skops").write_bytes(whole[: len(whole) // 2])
    for name in ("pickle", "bare.skops", "cut.skops"):
        with pytest.raises(ValueError, match="not a saved verifier"):
            LearnedVerifier.load(tmp_path / name)
    with pytest.raises(ValueError, match="no such file"):
        LearnedVerifier.load(tmp_path / "none")


def test_what_cannot_be_fitted_is_refused() -> None:
    pools = _pools(6, 1, "algebra")
    with pytest.raises(ValueError, match="model='forest'"):
        fit_verifier(pools, model="forest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="folds=1"):
        fit_verifier(pools, folds=1)
    with pytest.raises(ValueError, match="no problem statement"):
        fit_verifier([replace(pools[0], problem=" ")])
    with pytest.raises(ValueError, match="there are none"):
        fit_verifier([])
    with pytest.raises(ValueError, match="too few"):
        fit_verifier(pools[:1])
    unreferenced = [replace(pool, reference=None, _graded=None) for pool in pools]
    with pytest.raises(ValueError, match="too few"):
        fit_verifier(unreferenced)
