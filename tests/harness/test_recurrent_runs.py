"""hf-eglr on a recurrent-depth model: a grid of recurrences from the command to the store, and resumed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from eglr_selectors.grading import undecided
from lm_eval.api.instance import Instance
from saved_model import evaluate_tiny, save_recurrent_model
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.harness.model import EGLRLM
from lm_eval_eglr.store import StoreError, read_store
from lm_eval_eglr.store.undecided import read_undecided

GRID = "recurrences=1:2,temperatures=0:0.7"


@pytest.fixture(scope="module")
def recurrent_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_recurrent_model(tmp_path_factory.mktemp("recurrent"))


@pytest.fixture(scope="module")
def stored(recurrent_folder: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("rollouts") / "store"
    results = evaluate_tiny(recurrent_folder, f"{GRID},exit=kl,rollouts={folder}")
    return folder, results["results"]["demo_eglr"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "pools").iterdir()}


def test_the_store_says_which_recurrences_made_it(stored: tuple[Path, dict[str, Any]]) -> None:
    store = read_store(stored[0])
    fingerprint = store.manifest.fingerprint
    assert store.manifest.axis == "R"
    assert fingerprint["cells"] == ["R1/T0#0", "R1/T0.7#0", "R2/T0#0", "R2/T0.7#0"]
    assert (fingerprint["exit"], fingerprint["exit_threshold"], fingerprint["kv_budget"]) == (
        "kl",
        5e-4,
        None,
    )
    assert "entropy_threshold" not in fingerprint
    for document in store.documents("demo_eglr"):
        assert [str(rollout.cell) for rollout in document.parsed] == fingerprint["cells"]


def test_no_row_of_the_table_compares_with_a_level_0(stored: tuple[Path, dict[str, Any]]) -> None:
    _, rows = stored
    assert "exact_match,greedy" in rows, "the greedy rollout is that of the deepest level"
    assert not any(name.startswith("cost_vs_shared_plain") for name in rows)


def test_a_stopped_run_goes_on_and_is_the_same(
    recurrent_folder: str, stored: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    whole = files(stored[0])
    options = f"{GRID},exit=kl,rollouts={tmp_path / 'part'}"
    evaluate_tiny(recurrent_folder, options, limit=1)
    assert len(files(tmp_path / "part")) == 1
    evaluate_tiny(recurrent_folder, options)
    assert files(tmp_path / "part") == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("exit=latent", 'exit is "kl" there and "latent" here'),
        ("exit=kl,exit_threshold=0.1", "exit_threshold is 0.0005 there and 0.1 here"),
        ("exit=kl,kv_budget=1", "kv_budget is null there and 1 here"),
        ("exit=kl,state_seed=1", "state_seed is 0 there and 1 here"),
        ("exit=kl,recurrences=1:2:3", r'cells is \["R1/T0#0".* there and .*"R3/T0#0"'),
    ],
)
def test_a_run_with_other_iterations_is_another_run(
    options: str, message: str, recurrent_folder: str, stored: tuple[Path, dict[str, Any]]
) -> None:
    with pytest.raises(StoreError, match=message):
        evaluate_tiny(recurrent_folder, f"{GRID},{options},rollouts={stored[0]}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recurrences": "1:2", "spans": "0:2"}, "a grid has one axis of depth"),
        ({"recurrences": "0:2"}, "recurrences: '0' is no number of iterations; expected an integer >= 1"),
        ({"recurrences": "2:2"}, "recurrences='2:2': 2 occurs twice"),
        ({"recurrences": 2, "exit": "never"}, "exit='never': expected one of none, kl"),
        ({"recurrences": 2, "kv_budget": 0}, "kv_budget=0: expected an integer >= 1"),
        ({"recurrences": ""}, "recurrences='': expected a value; is a variable not set"),
    ],
)
def test_bad_options_are_refused_before_the_model_is_looked_for(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        EGLRLM("no/such/model", **options)
    assert "\n" not in str(caught.value)


def test_options_of_the_other_kind_of_model_are_refused(recurrent_folder: str, tiny_folder: str) -> None:
    for folder, options, message in (
        (recurrent_folder, {"spans": "0:2"}, "spans='0:2': .* takes recurrences"),
        (recurrent_folder, {"entropy_threshold": 0.5}, "entropy_threshold: .* recurrent-depth model"),
        (tiny_folder, {"recurrences": "1:2"}, "recurrences='1:2': .* not known as one; expected spans"),
        (tiny_folder, {"state_seed": 1}, "state_seed: an option of recurrent-depth models"),
    ):
        with pytest.raises(ValueError, match=message):
            EGLRLM(folder, device="cpu", **options)


def test_a_task_that_knows_no_pools_gets_the_model_as_it_is(recurrent_folder: str) -> None:
    model = EGLRLM(recurrent_folder, device="cpu", recurrences="1")
    generation = {"until": [], "max_gen_toks": 6, "do_sample": False}
    request = Instance("generate_until", {}, ("How many are 3 and 4?", generation), 0, ("other", 0, 1))
    [answer] = model.generate_until([request], disable_tqdm=True)
    assert [str(rollout.cell) for rollout in answer.pool] == ["R2/T0#0"]


def test_a_run_with_drafts_is_the_same_and_says_how_many_were_drawn(
    recurrent_folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = evaluate_tiny(recurrent_folder, GRID, log_samples=True)
    assert "drafted" not in caplog.text
    with caplog.at_level("INFO"):
        drafted = evaluate_tiny(recurrent_folder, f"{GRID},draft_recurrences=1", log_samples=True)
    assert re.search(r"\d+% of the drafted tokens were drawn", caplog.text)
    texts = [[sample["resps"] for sample in run["samples"]["demo_eglr"]] for run in (plain, drafted)]
    assert texts[0] == texts[1]


def test_a_registered_model_is_loaded_without_a_word_of_its_type(caplog: pytest.LogCaptureFixture) -> None:
    """Its class is not among those of transformers, which is all that lm_eval looks at."""
    assert EGLRLM("demo-recurrent", device="cpu").backend == "causal"
    assert "model type" not in caplog.text.lower()


def test_there_is_no_gate_to_calibrate(recurrent_folder: str) -> None:
    done = CliRunner().invoke(app, ["calibrate", "--model", recurrent_folder, "--limit", "1"])
    assert done.exit_code == 2
    assert "a recurrent-depth model has no gate to calibrate" in done.output


def test_what_the_grader_gives_up_on_is_remembered_by_a_live_run(
    recurrent_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval_eglr.harness import filters

    parse = filters.parse_documents
    monkeypatch.setattr(undecided, "reasons", dict(undecided.reasons))

    def giving_up(*given: Any, **options: Any) -> Any:
        undecided.add(("x", "y"), "ran out of time")
        return parse(*given, **options)

    monkeypatch.setattr(filters, "parse_documents", giving_up)
    evaluate_tiny(recurrent_folder, f"recurrences=1,temperatures=0,rollouts={tmp_path / 'store'}", limit=1)
    assert read_undecided(tmp_path / "store") == [["x", "y", "ran out of time"]]
