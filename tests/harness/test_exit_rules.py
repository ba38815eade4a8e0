"""Rules of exit of the recursion in hf-eglr: what a manifest says of them, and who may continue a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from saved_model import evaluate_tiny

from lm_eval_eglr.store import Manifest, StoreError, read_store

GRID = "spans=0:2,temperatures=0,entropy_threshold=0.5"


def decoded(tiny_folder: str, folder: Path, options: str = "") -> dict[str, Any]:
    evaluate_tiny(tiny_folder, f"{GRID},rollouts={folder},{options}".rstrip(","), limit=1)
    return read_store(folder).manifest.fingerprint


def test_runs_without_another_rule_are_described_as_before_there_was_one(
    tiny_folder: str, tmp_path: Path
) -> None:
    fingerprint = decoded(tiny_folder, tmp_path / "plain")
    recursion = {"entropy_threshold": 0.5, "max_recursions": 4, "tolerance": 1e-3}
    rest = ("update", "strength", "kv", "top_p", "top_k", "min_p", "seed", "noise")
    model = ("model", "revision", "commit", "dtype", "weights", "depth", "cells")
    assert fingerprint.keys() == {*recursion, *rest, *model}
    assert fingerprint.items() >= recursion.items()
    assert decoded(tiny_folder, tmp_path / "plain", "exit=kl") == fingerprint, "the run is continued"
    looser = decoded(tiny_folder, tmp_path / "looser", "exit=kl,exit_threshold=0.01")
    assert looser == {**fingerprint, "tolerance": 0.01}
    assert decoded(tiny_folder, tmp_path / "looser", "tolerance=0.01") == looser


@pytest.mark.parametrize(
    ("options", "said", "other"),
    [
        ("exit=latent", {"exit": "latent", "exit_threshold": 0.03}, "exit=latent,exit_threshold=0.1"),
        ("exit=entropy", {"exit": "entropy", "exit_threshold": 1e-3}, "exit=kl"),
        ("exit=none", {"exit": "none", "exit_threshold": None}, "exit=entropy"),
    ],
)
def test_another_rule_is_another_run(
    options: str, said: dict[str, Any], other: str, tiny_folder: str, tmp_path: Path
) -> None:
    fingerprint = decoded(tiny_folder, tmp_path, options)
    assert fingerprint.items() >= said.items()
    assert "tolerance" not in fingerprint
    assert Manifest.read(tmp_path).version == 1
    with pytest.raises(StoreError, match=r"exit(_threshold)? is .* there and .* here"):
        decoded(tiny_folder, tmp_path, other)


def test_the_word_none_is_a_value_where_it_is_one(tiny_folder: str, tmp_path: Path) -> None:
    """lm_eval makes ``None`` of it, which elsewhere means that nobody has given the option."""
    options = f"strategy=eager,n=2,branch_threshold=inf,budget=none,rollouts={tmp_path}"
    evaluate_tiny(tiny_folder, options, limit=1)
    assert read_store(tmp_path).manifest.fingerprint["strategy"]["budget"] == "none"
