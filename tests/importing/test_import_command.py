"""``eglr import`` and the commands that take other tools' rollouts as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.store import read_store
from lm_eval_eglr.store.jsonl import to_records

FILES = Path(__file__).parent / "files"


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def rows_of(*arguments: str | Path) -> Any:
    """What a command prints with ``--json``, without its messages."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_an_imported_store_is_whole_and_importing_again_changes_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    source = FILES / "inspect_0.3.285.eval"
    assert "12 rollouts of 4 problems" in run("import", source, "-o", store)
    assert "whole; mockllm/model, toy_sum; 4 pools, 0 missing" in run("verify-store", store)
    before = {path: path.read_bytes() for path in (store / "pools").iterdir()}
    assert "4 were there already" in run("import", source, "-o", store)
    assert {path: path.read_bytes() for path in (store / "pools").iterdir()} == before
    run("import", FILES / "best_of_n_completions.jsonl", "-o", store, code=1)


def test_options_override_what_the_source_says(tmp_path: Path) -> None:
    options = ("--task", "sums", "--model", "mine", "--rules", "integer", "--fallbacks", "none")
    run("import", FILES / "best_of_n_completions.jsonl", "-o", tmp_path / "store", *options)
    store = read_store(tmp_path / "store")
    assert (store.tasks, store.manifest.model) == (["sums"], "mine")
    assert {(pool.key.rules.form, pool.key.fallbacks) for pool in store.pools} == {("integer", ())}
    assert "expected" in run(
        "import", FILES / "lm_eval", "-o", tmp_path / "x", "--fallbacks", "nowhere", code=2
    )


def test_sources_of_one_model_are_repeats(tmp_path: Path) -> None:
    source = FILES / "best_of_n_completions.jsonl"
    shutil.copytree(FILES, tmp_path / "files")
    run("import", source, tmp_path / "files" / source.name, "--model", "m", "-o", tmp_path / "store")
    store = read_store(tmp_path / "store")
    assert [len(document.parsed) for document in store.documents("best_of_n")] == [8] * 4


def test_an_export_comes_back_by_the_command(tmp_path: Path) -> None:
    run("import", FILES / "inspect_0.3.285.eval", "-o", tmp_path / "one")
    run("export", tmp_path / "one", "--format", "jsonl")
    run("import", tmp_path / "one.jsonl", "-o", tmp_path / "two", "--model", "mockllm/model")
    # Undefined figures are NaN, which equals nothing.
    one, two = (list(to_records(read_store(tmp_path / name).pools)) for name in ("one", "two"))
    assert repr(one) == repr(two)


def test_commands_take_an_output_folder_as_the_store_that_it_would_become(tmp_path: Path) -> None:
    run("import", FILES / "lm_eval", "-o", tmp_path / "store")
    arguments = ("--selector", "majority,oracle")
    direct = rows_of("select", FILES / "lm_eval", *arguments)
    stored = rows_of("select", tmp_path / "store", *arguments)
    for row in (*direct["strategies"], *direct["pools"], *stored["strategies"], *stored["pools"]):
        row.pop("store", None)
    assert direct == stored
    assert {row["value"] for row in direct["strategies"]} == {0.875}
    run("export", FILES / "lm_eval", "-o", tmp_path / "rows.jsonl")
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 32
    run("report", FILES / "lm_eval", "-o", tmp_path / "page.html", "--selector", "majority")
    assert "demo_eglr" in (tmp_path / "page.html").read_text()


def test_compare_has_selectors_where_there_are_samples_and_results_elsewhere() -> None:
    rows = rows_of("compare", FILES / "lm_eval_stock", "--selector", "majority")
    assert {(row["task"], row["strategy"]) for row in rows} == {("toy_gsm", "majority"), ("toy_mc", "none")}


def test_a_command_says_of_a_damaged_file_what_import_says(tmp_path: Path) -> None:
    (tmp_path / "torn.jsonl").write_text('{"prompt": "2+3?", "texts": [\n')
    for command in ("select", "compare", "report", "export"):
        assert "torn.jsonl, line 1: not JSON" in " ".join(
            run(command, tmp_path / "torn.jsonl", code=2).split()
        )


def test_ls_lists_an_output_folder_as_the_store_that_it_would_become(tmp_path: Path) -> None:
    run("import", FILES / "lm_eval", "-o", tmp_path / "store")
    [direct], [stored] = (rows_of("ls", path)["stores"] for path in (FILES / "lm_eval", tmp_path / "store"))
    for name in ("model", "tasks", "done", "missing", "rollouts"):
        assert direct[name] == stored[name]
    assert (direct["tokens"], direct["flops"]) == (None, None)  # which lm_eval does not say
    shown = run("ls", FILES / "lm_eval", FILES / "nowhere", code=1)
    assert "demo_eglr" in shown
    assert "nowhere: there is no such file or folder" in " ".join(shown.split())


def test_an_output_folder_has_nothing_to_verify() -> None:
    said = " ".join(run("verify-store", FILES / "lm_eval", code=2).split())
    assert "of the format lm_eval, which has no checksums to verify; `eglr import` makes a store" in said


def test_breakdown_takes_an_output_folder_of_one_task(tmp_path: Path) -> None:
    [samples] = (FILES / "lm_eval").rglob("samples_*.jsonl")
    assert run("breakdown", FILES / "lm_eval") == run("breakdown", samples)
    assert "toy_gsm, toy_mc); name the file of one" in run("breakdown", FILES / "lm_eval_stock", code=2)
    assert "no samples_*.jsonl" in run("breakdown", tmp_path, code=2)
    run("import", FILES / "lm_eval", "-o", tmp_path / "store")
    assert "a rollout store; name the samples_*.jsonl" in run("breakdown", tmp_path / "store", code=2)
    assert "not UTF-8 text" in run("breakdown", FILES / "inspect_0.3.285.eval", code=2)


def test_results_without_samples_say_what_is_missing(tmp_path: Path) -> None:
    [results] = (FILES / "lm_eval").rglob("results_*.json")
    shutil.copy(results, tmp_path)
    for command in ("ls", "select", "verify-store", "report", "export"):
        said = run(command, tmp_path, code=1 if command == "ls" else 2)
        assert "results of lm_eval without samples, which --log_samples writes" in " ".join(said.split())
