"""A fitted classifier as a verifier, saved without pickle."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from eglr_selectors.parsed import ParsedPool, parse_pool
from eglr_selectors.pool import Rollout, RolloutPool
from eglr_selectors.verifiers.features import FEATURES, features

_FORMAT = 1
_HEADER = "verifier.json"
_LARGEST = 64 * 2**20
"""Bytes that a file may unpack to; what ``fit-verifier`` writes has less than one million."""

_TRUSTED = {
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
}
"""The parts of scikit-learn, beyond those that skops trusts by itself, that our two models are made of."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """How good a verifier is on problems that it was not fitted on: out-of-fold figures.

    Attributes:
        model: Its kind.
        problems: Problems it was fitted on.
        rollouts: Graded rollouts it was fitted on.
        folds: Folds of the cross-validation; a problem is in one only.
        auroc: Chance that a right rollout scores above a wrong one; ties count half.
        brier: Mean squared error of the calibrated probabilities.
        accuracy: Mean accuracy of a rollout.
        majority: Accuracy of majority.
        best_of_n: Accuracy of the best scored rollout.
    """

    model: str
    problems: int
    rollouts: int
    folds: int
    auroc: float
    brier: float
    accuracy: float
    majority: float
    best_of_n: float

    @property
    def gain(self) -> float:
        """What best-of-n gains over a rollout drawn at random."""
        return self.best_of_n - self.accuracy

    def __str__(self) -> str:
        return (
            f"{self.model}: {self.problems} problems, {self.rollouts} rollouts, {self.folds}-fold\n"
            f"AUROC {self.auroc:.3f}, Brier {self.brier:.3f}\n"
            f"best-of-n {self.best_of_n:.1%} (gain {self.gain:+.1%} over one rollout's "
            f"{self.accuracy:.1%}), majority {self.majority:.1%}"
        )


@dataclass(frozen=True, eq=False)
class LearnedVerifier:
    """The probability that a rollout is right, by a scikit-learn classifier on :data:`FEATURES`.

    Attributes:
        classifier: Calibrated; of rows of features.
        fitted_on: Digests of the problems that it has seen.
        report: How it did in cross-validation.
        allow_fitted: Whether it scores problems that it has seen; its figures for them are too good.
    """

    classifier: Any
    fitted_on: frozenset[str]
    report: FitReport
    allow_fitted: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.allow_fitted, bool):
            raise ValueError(f"allow_fitted={self.allow_fitted!r}: expected True or False")

    def score(self, problem: str, rollouts: Sequence[Rollout]) -> list[float]:
        """Returns the probability that each rollout is right.

        Args:
            problem: The problem as stated.
            rollouts: Its rollouts; a parsed pool brings its answers, of others they are read.

        Raises:
            ValueError: If it was fitted on this problem and is not allowed to score it.
        """
        if not self.allow_fitted and digest(problem) in self.fitted_on:
            raise ValueError(
                "allow_fitted=False: the verifier was fitted on this problem, its score would mean nothing"
            )
        if not len(rollouts):
            return []
        parsed = rollouts if isinstance(rollouts, ParsedPool) else parse_pool(RolloutPool(tuple(rollouts)))
        return self.classifier.predict_proba(features(parsed))[:, 1].tolist()

    def save(self, path: str | Path) -> None:
        """Writes the classifier with skops, which stores no code, and beside it in the file what it is."""
        import sklearn
        from skops.io import dump

        header = {
            "format": _FORMAT,
            "sklearn": sklearn.__version__,
            "features": list(FEATURES),
            "fitted_on": sorted(self.fitted_on),
            "report": asdict(self.report),
        }
        dump(self.classifier, path)
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(_HEADER, json.dumps(header))

    @classmethod
    def load(cls, path: str | Path, *, allow_fitted: bool = False) -> LearnedVerifier:
        """Reads a saved verifier; nothing but scikit-learn's own types is ever made of the file.

        Raises:
            ValueError: If the file is none, holds other types, or was made by another scikit-learn or
                for other features.
        """
        from skops.io import get_untrusted_types, load
        from skops.io.exceptions import UntrustedTypesFoundException

        named = f"path={str(path)!r}"
        if not Path(path).is_file():
            raise ValueError(f"{named}: no such file")
        try:
            with zipfile.ZipFile(path) as file:
                size = sum(entry.file_size for entry in file.infolist())
                header = dict(json.loads(file.read(_HEADER))) if size <= _LARGEST else {}
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{named}: not a saved verifier") from error
        if size > _LARGEST:
            raise ValueError(f"{named}: unpacks to {size} bytes, expected at most {_LARGEST}")
        _check_header(header, named)
        try:
            foreign = set(get_untrusted_types(file=path))
            classifier = load(path, trusted=sorted(foreign & _TRUSTED))
        except UntrustedTypesFoundException as error:
            raise ValueError(f"{named}: holds untrusted types {', '.join(foreign - _TRUSTED)}") from error
        except Exception as error:  # whatever reading a damaged file comes to
            raise ValueError(f"{named}: not a saved verifier ({error})") from error
        if not callable(getattr(classifier, "predict_proba", None)):
            raise ValueError(f"{named}: holds no classifier")
        return cls(classifier, frozenset(header["fitted_on"]), FitReport(**header["report"]), allow_fitted)


def _check_header(header: dict[str, Any], named: str) -> None:
    """Refuses what this version cannot use: a classifier of another scikit-learn may fail or mislead."""
    import sklearn

    if header.get("format") != _FORMAT:
        raise ValueError(f"{named}: format {header.get('format')}, expected {_FORMAT}")
    made_by, ours = str(header.get("sklearn")), sklearn.__version__
    if made_by.split(".")[:2] != ours.split(".")[:2]:
        raise ValueError(f"{named}: made by scikit-learn {made_by}, this is {ours}; fit it again")
    if header.get("features") != list(FEATURES):
        raise ValueError(f"{named}: made for other features; fit it again")
    seen = header.get("fitted_on")
    if not isinstance(seen, list) or not all(isinstance(each, str) for each in seen):
        raise ValueError(f"{named}: fitted_on: expected a list of digests")
    report = header.get("report")
    kinds: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}
    expected = {field.name: kinds[str(field.type)] for field in fields(FitReport)}
    if not isinstance(report, dict) or report.keys() != expected.keys():
        raise ValueError(f"{named}: report: expected {', '.join(expected)}")
    for name, kind in expected.items():
        if not isinstance(report[name], kind):
            raise ValueError(f"{named}: report: {name}={report[name]!r:.80}: of another type")


def digest(problem: str) -> str:
    """Returns what tells a problem from others, whatever its blanks."""
    return hashlib.sha256(" ".join(problem.split()).encode()).hexdigest()


def as_rows(pools: Sequence[ParsedPool]) -> np.ndarray:
    """Returns the features of all rollouts of all pools, ``[rollouts, features]``."""
    return np.vstack([features(parsed) for parsed in pools])
