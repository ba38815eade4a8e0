"""Verifier files of strangers behind a right header: other types, other values, other sizes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import sklearn
from eglr_selectors.verifiers.features import FEATURES
from eglr_selectors.verifiers.learned import LearnedVerifier

REPORT: dict[str, Any] = {
    "model": "logistic",
    "problems": 3,
    "rollouts": 9,
    "folds": 3,
    "auroc": 0.5,
    "brier": 0.2,
    "accuracy": 0.5,
    "majority": 0.5,
    "best_of_n": 0.5,
}
HEADER: dict[str, Any] = {
    "format": 1,
    "sklearn": sklearn.__version__,
    "features": list(FEATURES),
    "fitted_on": [],
    "report": REPORT,
}


def with_header(path: Path, classifier: Any, **changes: Any) -> Path:
    from skops.io import dump

    dump(classifier, path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("verifier.json", json.dumps({**HEADER, **changes}))
    return path


def with_schema(path: Path, schema: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("schema.json", json.dumps({"_skops_version": "0.13", "protocol": 2, **schema}))
        file.writestr("verifier.json", json.dumps(HEADER))
    return path


def classifier() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit([[0.0] * len(FEATURES), [1.0] * len(FEATURES)], [0, 1])


@pytest.mark.parametrize(
    ("module", "name"), [("os", "system"), ("builtins", "eval"), ("subprocess", "Popen")]
)
def test_a_function_behind_a_right_header_is_neither_made_nor_called(
    module: str, name: str, tmp_path: Path
) -> None:
    function = {"__class__": name, "__module__": module, "__loader__": "FunctionNode", "__id__": 1}
    path = with_schema(
        tmp_path / "v.skops", {**function, "content": {"module_path": module, "function": name}}
    )
    with pytest.raises(ValueError, match=r"v\.skops'.*untrusted types|not a saved verifier") as caught:
        LearnedVerifier.load(path)
    assert "\n" not in str(caught.value)


class Foreign:
    """A type that is no part of scikit-learn."""

    def __init__(self) -> None:
        self.value = 1


def test_an_object_of_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds untrusted types .*Foreign"):
        LearnedVerifier.load(with_header(tmp_path / "v.skops", Foreign()))
    model = classifier()
    model.classes_ = Foreign()
    with pytest.raises(ValueError, match=r"holds untrusted types .*Foreign"):
        LearnedVerifier.load(with_header(tmp_path / "w.skops", model))


@pytest.mark.parametrize("other", [{"a": 1}, [1, 2], "text", 3])
def test_what_is_no_classifier_is_refused(other: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no classifier"):
        LearnedVerifier.load(with_header(tmp_path / "v.skops", other))


@pytest.mark.parametrize(
    "changes",
    [
        {"report": None},
        {"report": {**REPORT, "auroc": "x"}},
        {"report": {**REPORT, "more": 1}},
        {"report": {}},
        {"fitted_on": None},
        {"fitted_on": [[1]]},
        {"fitted_on": "abc"},
    ],
)
def test_a_header_of_other_values_is_refused_in_one_line(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"v\.skops': (report|fitted_on)") as caught:
        LearnedVerifier.load(with_header(tmp_path / "v.skops", classifier(), **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["verifier.json", "schema.json", "large.npy"])
def test_a_file_that_unpacks_to_much_is_refused_unread(name: str, tmp_path: Path) -> None:
    path = with_header(tmp_path / "v.skops", classifier())
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file,
        file.open(name, "w", force_zip64=True) as entry,
    ):
        for _ in range(70):
            entry.write(b" " * 2**20)
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match=r"unpacks to 7[0-9]{7} bytes, expected at most"):
        LearnedVerifier.load(path)
