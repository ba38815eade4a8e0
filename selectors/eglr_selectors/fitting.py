"""Fitting a learned verifier, and finding out what it is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from eglr_selectors.options import check_count, check_name
from eglr_selectors.parsed import ParsedPool
from eglr_selectors.verifiers.learned import FitReport, LearnedVerifier, as_rows, digest

Model = Literal["logistic", "boosting"]

_BELOW_ALL = -1e6


def fit_verifier(
    pools: Sequence[ParsedPool], *, model: Model = "logistic", folds: int = 5, seed: int = 0
) -> LearnedVerifier:
    """Fits a classifier of right and wrong rollouts, calibrated, with cross-validated figures.

    Folds keep a problem's rollouts together, in the cross-validation and in the calibration:
    otherwise the classifier would recognise problems. Rollouts that could not be graded are left out.

    Args:
        pools: Parsed pools with their references and problems.
        model: ``logistic`` regression or histogram gradient ``boosting``.
        folds: Folds of the cross-validation; fewer where there are not enough problems.
        seed: Seed of the folds and of the classifier.

    Raises:
        ValueError: If an option is bad, a pool has no problem statement, or the rollouts of the
            problems do not suffice to tell right from wrong.
    """
    check_name("model", model, get_args(Model))
    check_count("folds", folds, low=2)
    if any(not parsed.problem.strip() for parsed in pools):
        raise ValueError("problems: a pool has no problem statement to keep it apart by")
    if not pools:
        raise ValueError("pools: there are none")
    rows, groups = as_rows(pools), _groups(pools)
    correct = np.array([_as_label(each) for parsed in pools for each in parsed.correct])
    graded = ~np.isnan(correct)
    x, y, g = rows[graded], correct[graded].astype(int), groups[graded]
    splits = _splits(y, g, folds, seed)
    held_out = np.full(len(correct), math.nan)
    for train, test in splits:
        fitted = _fit(model, x[train], y[train], g[train], folds, seed)
        held_out[np.flatnonzero(graded)[test]] = fitted.predict_proba(x[test])[:, 1]
    report = _report(model, pools, held_out, correct, len(splits), len(np.unique(g)))
    seen = frozenset(digest(parsed.problem) for parsed in pools)
    return LearnedVerifier(_fit(model, x, y, g, folds, seed), seen, report)


def _fit(model: str, x: np.ndarray, y: np.ndarray, g: np.ndarray, folds: int, seed: int) -> Any:
    from sklearn.calibration import CalibratedClassifierCV

    splits = _splits(y, g, folds, seed)
    # One classifier on everything and one sigmoid on held-out scores, rather than one pair per fold.
    calibrated = CalibratedClassifierCV(_classifier(model, seed), method="sigmoid", cv=splits, ensemble=False)
    calibrated.fit(x, y)
    calibrated.cv = None  # the indices of the splits are of no use later and would be saved
    return calibrated


def _classifier(model: str, seed: int) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    # A figure that no rollout knows stays a column, so that another benchmark's may be known.
    if model == "boosting":
        from sklearn.ensemble import HistGradientBoostingClassifier

        # Unknown goes below all values: the histogram cannot be made of a column without any.
        return make_pipeline(
            SimpleImputer(strategy="constant", fill_value=_BELOW_ALL, keep_empty_features=True),
            HistGradientBoostingClassifier(
                learning_rate=0.05, min_samples_leaf=20, early_stopping=False, random_state=seed
            ),
        )
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(max_iter=1000)
    )


def _splits(y: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns folds that keep groups together and leave both kinds to learn from."""
    from sklearn.model_selection import StratifiedGroupKFold

    problems = len(np.unique(groups))
    for count in range(min(folds, problems, np.bincount(y, minlength=2).min()), 1, -1):
        folding = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        splits = list(folding.split(y, y, groups))
        if all(len(test) and 0 < y[train].mean() < 1 for train, test in splits):
            return splits
    raise ValueError(
        f"pools: {problems} problems with {int(y.sum())} right and {int(len(y) - y.sum())} wrong rollouts "
        "are too few to hold any out"
    )


def _groups(pools: Sequence[ParsedPool]) -> np.ndarray:
    """Numbers the problem of every rollout; pools of one problem share their number."""
    numbers: dict[str, int] = {}
    return np.array(
        [numbers.setdefault(digest(parsed.problem), len(numbers)) for parsed in pools for _ in parsed],
        dtype=int,
    )


def _as_label(correct: bool | None) -> float:
    return math.nan if correct is None else float(correct)


def _report(
    model: str,
    pools: Sequence[ParsedPool],
    held_out: np.ndarray,
    correct: np.ndarray,
    folds: int,
    problems: int,
) -> FitReport:
    from sklearn.metrics import brier_score_loss, roc_auc_score

    from eglr_selectors.estimators import accuracy
    from eglr_selectors.scores import highest

    known = ~np.isnan(held_out)
    starts = np.cumsum([0, *(len(parsed) for parsed in pools)])
    scores = {
        id(parsed.blind): held_out[start : start + len(parsed)].tolist()
        for parsed, start in zip(pools, starts, strict=False)
    }
    return FitReport(
        model,
        problems,
        int(known.sum()),
        folds,
        float(roc_auc_score(correct[known], held_out[known])),
        float(brier_score_loss(correct[known], held_out[known])),
        float(correct[known].mean()),
        accuracy(pools, "majority").mean,
        accuracy(pools, lambda parsed: highest(parsed, scores[id(parsed)])).mean,
    )
