"""Offline tables: equal to the live run's, without torch or lm_eval, harmless whatever the texts say."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pandas
import pytest
from eglr_selectors import default_selectors
from stored_runs import ANSWERS, make_tiny, run_tiny, small_head, small_pool, write_small
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app, main
from lm_eval_eglr.reports.selector_rows import pool_shares, restrict, strategy_row
from lm_eval_eglr.store import Manifest, StoreWriter, read_store

EVIL = "=cmd()|'<script>alert(1)</script>\x1b[31m"


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout


def test_offline_numbers_are_the_live_ones_to_the_last_digit(tmp_path: Path) -> None:
    make_tiny(tmp_path)
    live = run_tiny(tmp_path, tmp_path / "store")["results"]["toy_eglr"]
    documents = read_store(tmp_path / "store").documents("toy_eglr")
    for name in default_selectors():
        row = strategy_row("tiny", "toy_eglr", documents, name)
        label = f"{name} (uses reference)" if row.uses_reference else name
        if math.isnan(row.value):
            assert f"exact_match,{label}" not in live, "what is undefined has no row"
        else:
            assert repr(row.value) == repr(float(live[f"exact_match,{label}"])), name
    for name, value in pool_shares(documents).items():
        assert repr(value) == repr(float(live[f"{name},pool"])), name


def test_select_as_json(tmp_path: Path) -> None:
    store = write_small(tmp_path / "store")
    rows = json.loads(run("select", store, "--selector", "majority,oracle,cell(2, 0.7, 0)", "--json"))
    values = {row["strategy"]: row["value"] for row in rows["strategies"]}
    assert values == {"majority": 0.2, "oracle": 0.8, "cell(2, 0.7, 0)": 0.0}
    assert rows["pools"][0]["truncated"] == pytest.approx(0.1)
    only = json.loads(run("select", store, "--selector", "oracle", "--spans", "0", "--json"))["strategies"][0]
    assert (only["value"], only["rollouts"]) == (0.4, 3.0)
    single = json.loads(run("select", store, "--selector", "majority", "--k", "1", "--json"))["strategies"][0]
    assert single["value"] == pytest.approx(6 / 30)


def test_the_harness_standard_error(tmp_path: Path) -> None:
    from lm_eval.api.metrics import mean, mean_stderr

    row = strategy_row("m", "toy", read_store(write_small(tmp_path)).documents("toy"), "majority")
    values = list(row.outcomes.values())
    assert (row.value, row.stderr) == (mean(values), mean_stderr(values))


def test_commands_need_neither_torch_nor_lm_eval(tmp_path: Path) -> None:
    write_small(tmp_path / "store")
    program = (
        "import sys; from lm_eval_eglr.cli.app import app\n"
        "assert not {'scipy', 'pandas', 'sklearn'} & set(sys.modules)\n"  # a help text need not wait for them
        "for command in ('select', 'compare', 'verify-store', 'report', 'export --format jsonl'):\n"
        "    app([*command.split(), 'store'], standalone_mode=False)\n"
        "assert not {'torch', 'lm_eval', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "store.jsonl").is_file()


def test_repeats_of_a_document_are_one_pool(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path)
    with writer.writing(Manifest()):
        for repeat in (1, 0):
            writer.append(small_head(3, repeat=repeat), small_pool(ANSWERS[repeat]))
    (document,) = read_store(tmp_path).documents("toy")
    assert [rollout.text for rollout in document.parsed][:6] == [r.text for r in small_pool(ANSWERS[0])]
    assert len(document.parsed) == 12
    assert len(restrict([document], [2], [0.0])[0].parsed) == 2
    for depths, temperatures, message in (
        ([5], None, "spans: 5 is not among those of the rollouts, 0, 2"),
        ([0, 1.5], None, r"spans: 1\.5 is not among"),
        (None, [0.7, 0.8], r"temperatures: 0\.8 is not among those of the rollouts, 0, 0\.7"),
    ):
        with pytest.raises(ValueError, match=message):
            restrict([document], depths, temperatures)
    (half,) = restrict([document], [2], None)
    with pytest.raises(ValueError, match=r"spans=\[0\], temperatures=None: document 3 has no such rollout"):
        restrict([document, half], [0], None)


@pytest.mark.parametrize("form", ["markdown", "csv", "latex", "html", "rich", "json"])
def test_a_hostile_name_stays_text(tmp_path: Path, form: str) -> None:
    writer = StoreWriter(tmp_path)
    with writer.writing(Manifest({"model": EVIL})):
        writer.append(small_head(0), small_pool(ANSWERS[0]))
    shown = run("compare", tmp_path, "--selector", "majority", "--format", form)
    assert "\x1b[31m" not in shown
    if form == "html":
        assert "<script" not in shown
    if form == "csv":
        assert next(csv.DictReader(io.StringIO(shown)))["model"].startswith("'=cmd")


def test_compare_reads_results_of_plain_lm_eval(tmp_path: Path) -> None:
    store = write_small(tmp_path / "store")
    results = {
        "results": {"toy": {"exact_match,strict": 0.4, "exact_match_stderr,strict": 0.1, "alias": "toy"}},
        "model_name": "other/model",
        "n-samples": {"toy": {"original": 5, "effective": 5}},
        "configs": {"toy": {"repeats": 1}},
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    rows = json.loads(
        run("compare", store, path, "--selector", "majority,greedy,oracle", "--baseline", "greedy", "--json")
    )
    by_name = {(row["model"], row["strategy"]): row for row in rows}
    assert by_name["other/model", "strict"]["best"] is True
    unpaired = by_name["other/model", "strict"]  # no outcomes by problem: 0.4 ± 0.1 against 0.2 ± 0.2
    assert (unpaired["test"], unpaired["test_problems"]) == ("unpaired", 0)
    assert unpaired["p_value"] == pytest.approx(2 * (1 - NormalDist().cdf(0.2 / math.hypot(0.1, 0.2))))
    assert by_name["tiny", "majority"]["p_value"] == 1
    assert by_name["tiny", "oracle"]["p_value"] is None, "an oracle is no strategy"
    table = run("compare", store, path, "--selector", "majority,oracle", "--format", "markdown")
    assert "**40.0 \\[20–60\\]**" in table
    assert "20.0 \\[0–60\\]" in table
    path.write_text("{}")
    assert main_code(["compare", str(path)]) == 2


@pytest.mark.parametrize(
    "odd", [[], "x", None, 7, {"toy": []}, {"toy": {"effective": "x", "repeats": []}}], ids=str
)
def test_compare_takes_what_a_results_file_has_and_leaves_what_is_odd(odd: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    keys = ("n-samples", "configs", "group_subtasks", "config")
    path.write_text(json.dumps({"results": {"toy": {"acc,none": 0.5}}, **dict.fromkeys(keys, odd)}))
    [row] = json.loads(run("compare", path, "--json"))
    assert (row["value"], row["rollouts"]) == (0.5, None)


DATE = "2026-01-02T03-04-05.678901"


def write_results(folder: Path, samples: bool, outcomes: tuple[int, ...] = (1, 1, 1, 0, 1)) -> Path:
    """Results of a plain run on the problems of the small store, whose references are all 1."""
    folder.mkdir()
    mean = sum(outcomes) / len(outcomes)
    content = {
        "results": {
            "toy": {"exact_match,strict": mean, "exact_match_stderr,strict": 0.2, "exact_match,loose": 0.2},
            "group": {"exact_match,strict": mean},
            "words": {"word_perplexity,none": 3.0},
        },
        "group_subtasks": {"group": ["toy"], "toy": []},
        "model_name": "/data/models/other",
        "n-samples": {"toy": {"original": 5, "effective": 5}},
    }
    path = folder / f"results_{DATE}.json"
    path.write_text(json.dumps(content))
    if samples:
        lines = [
            {"doc_id": i, "target": "1", "doc_hash": f"h{i}", "filter": "strict", "exact_match": float(each)}
            for i, each in enumerate(outcomes)
        ]
        text = "\n".join(json.dumps(line) for line in lines) + "\n"
        (folder / f"samples_toy_{DATE}.jsonl").write_text(text)
    return path


def test_logged_samples_make_tests_against_plain_results_paired(tmp_path: Path) -> None:
    store = write_small(tmp_path / "store")
    path = write_results(tmp_path / "plain", samples=True)
    arguments = ["--selector", "greedy", "--baseline", "greedy"]
    rows = json.loads(run("compare", store, path, *arguments, "--json"))
    by_name = {(row["model"], row["strategy"]): row for row in rows}
    strict, loose = by_name["other", "strict"], by_name["other", "loose"]
    # greedy is right on problem 0 alone, the plain run on all but problem 3
    assert (strict["test"], strict["test_problems"]) == ("mcnemar", 5)
    assert strict["p_value"] == pytest.approx(0.25)
    assert (loose["test"], loose["p_value"]) == (None, None)
    shown = run("compare", store, path, *arguments, "--format", "markdown")
    assert "not tested on every benchmark: plain/loose" in shown


def test_samples_of_other_problems_or_another_run_pair_nothing(tmp_path: Path) -> None:
    store = write_small(tmp_path / "store", reference="2")
    path = write_results(tmp_path / "plain", samples=True)
    arguments = ["--selector", "greedy", "--baseline", "greedy", "--json"]
    rows = json.loads(run("compare", store, path, *arguments))
    assert {row["test"] for row in rows if row["strategy"] == "strict"} == {"unpaired"}
    samples = path.with_name(f"samples_toy_{DATE}.jsonl")
    samples.write_text(samples.read_text().replace('"exact_match": 0.0', '"exact_match": 1.0'))
    rows = json.loads(run("compare", write_small(tmp_path / "again"), path, *arguments))
    assert {row["test"] for row in rows if row["strategy"] == "strict"} == {"unpaired"}
    samples.write_text("{}\n")
    assert main_code(["compare", str(path)]) == 2


def test_groups_and_tasks_without_correctness_stay_out_unless_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_results(tmp_path / "plain", samples=False)
    assert main_code(["compare", str(path), "--json"]) == 0
    printed = capsys.readouterr()
    assert {row["task"] for row in json.loads(printed.out)} == {"toy"}
    assert "without words, which have no metric of correctness" in printed.err
    assert main_code(["compare", str(path), "--json", "--task", "group"]) == 0
    assert {row["task"] for row in json.loads(capsys.readouterr().out)} == {"group"}
    assert main_code(["compare", str(path), "--task", "toy,nothing"]) == 2


@pytest.mark.parametrize("width", [40, 200])
def test_a_narrow_terminal_tears_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")  # taken for a terminal, whose width counts
    assert main_code(["compare", str(write_small(tmp_path / "store")), "--selector", "majority,oracle"]) == 0
    shown = re.sub("\x1b[^m]*m", "", capsys.readouterr().out)
    assert "20.0 [0–60]" in shown
    assert ("39" in shown, "1.00" in shown) == (width == 200, width == 200)
    assert ("not shown at this width: tokens, MFLOPs" in shown) == (width == 40)
    assert max(map(len, shown.splitlines())) <= width


def test_without_a_reference_nothing_is_right_or_wrong(tmp_path: Path) -> None:
    store = write_small(tmp_path / "store", reference=None)
    rows = json.loads(run("select", store, "--selector", "majority,oracle", "--json"))["strategies"]
    assert [(row["value"], row["undefined"]) for row in rows] == [(None, 5), (None, 5)]
    run("export", store, "--format", "parquet")
    assert list(pandas.read_parquet(tmp_path / "store.parquet"))[:3] == ["prompt", "completion", "prompt_id"]


def test_a_table_has_every_rollout_with_its_answer(tmp_path: Path) -> None:
    store = read_store(write_small(tmp_path / "store"))
    frame = store.to_pandas()
    rollouts = [(d, i) for d in store.documents("toy") for i in range(len(d.parsed))]
    assert len(frame) == len(rollouts) == 30
    for (document, i), row in zip(rollouts, frame.itertuples(), strict=True):
        answer = document.parsed.answers[i]
        assert (row.answer if isinstance(row.answer, str) else None) == (answer and answer.text)
        assert row.correct == document.parsed.correct[i]
        assert (row.span, row.temperature, row.doc_id) == (
            document.parsed[i].cell.span,
            document.parsed[i].cell.temperature,
            document.key.doc_id,
        )
    assert store.to_pandas("toy").equals(frame)
    with pytest.raises(ValueError, match="task='other'"):
        store.to_pandas("other")
    ungraded = read_store(write_small(tmp_path / "ungraded", reference=None)).to_pandas()
    assert ungraded["correct"].isna().all()
    run("export", tmp_path / "store", "--format", "parquet")
    exported = pandas.read_parquet(tmp_path / "store.parquet")
    assert list(exported["correct"]) == list(frame["correct"])
    assert list(exported["answer"].fillna("")) == list(frame["answer"].fillna(""))


def test_what_is_no_store_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, code, words in (
        (["verify-store", str(tmp_path / "absent")], 1, "there is no such folder"),
        (["verify-store", str(tmp_path)], 1, "not a rollout store, it has no manifest.json"),
        (["compare", str(tmp_path / "absent.json")], 2, "there is no such file or folder"),
        (
            ["report", str(write_small(tmp_path / "store")), "-o", str(tmp_path)],
            2,
            "a folder, expected a file",
        ),
    ):
        assert main_code(command) == code
        printed = capsys.readouterr()
        assert words in printed.err
        assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert main_code(["export", str(tmp_path / "store"), "-o", str(tmp_path / "new" / "rows.jsonl")]) == 0
    assert (tmp_path / "new" / "rows.jsonl").stat().st_size


def test_two_runs_of_one_model_are_told_apart(tmp_path: Path) -> None:
    write_small(tmp_path / "first")
    write_small(tmp_path / "second", ANSWERS[:3])
    rows = json.loads(
        run("compare", tmp_path / "first", tmp_path / "second", "--selector", "majority", "--json")
    )
    assert [(row["store"], row["model"]) for row in rows] == [("second", "tiny"), ("first", "tiny")]


def main_code(arguments: list[str]) -> int:
    argv = sys.argv
    sys.argv = ["eglr", *arguments]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = argv
    return 0


def test_exit_codes_and_one_line_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = write_small(tmp_path / "store")
    assert main_code(["verify-store", str(store)]) == 0
    assert main_code(["select", str(store), "--selector", "nonsense"]) == 2
    assert main_code(["select", str(store), "--spans", "a"]) == 2
    assert main_code(["select", str(tmp_path / "absent")]) == 1
    path = next((store / "pools").glob("*"))
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    capsys.readouterr()
    assert main_code(["select", str(store)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main_code(["verify-store", str(store)]) == 1
    path.unlink()
    assert main_code(["verify-store", str(store)]) == 3
    assert main_code(["select", str(store), "--selector", "majority"]) == 0
    assert "1 of 5 pools are missing" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lm_eval_eglr.cli.select.strategy_row", interrupted)
    assert main_code(["select", str(write_small(tmp_path / "store"))]) == 130
    assert "the same command starts again" in capsys.readouterr().err


def test_selectors_are_listed() -> None:
    listed = json.loads(run("selectors", "--json"))
    assert {"majority", "oracle"} <= {entry["name"] for entry in listed}
    assert all(entry["origin"] and not math.isnan(len(entry["description"])) for entry in listed)


@pytest.mark.parametrize(
    ("row", "rollouts"),
    [
        ("majority", 6.0),
        ("oracle (uses reference)", 6.0),
        ("greedy", 1.0),
        ("adaptive", None),
        ("maj@4", 4.0),
    ],
)
def test_a_results_file_of_ours_says_how_many_rollouts_a_row_rests_on(
    tmp_path: Path, row: str, rollouts: float | None
) -> None:
    content = {
        "results": {"toy": {f"exact_match,{row}": 0.5, "truncated,pool": 0.0}},
        "configs": {"toy": {"repeats": 1}},
        "config": {"model": "hf-eglr", "model_args": {"spans": "0:2", "temperatures": "0:0.7x2"}},
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    [found] = json.loads(run("compare", path, "--json"))
    assert (found["strategy"], found["rollouts"]) == (row.removesuffix(" (uses reference)"), rollouts)
    del content["config"]
    path.write_text(json.dumps(content))
    [found] = json.loads(run("compare", path, "--json"))
    assert found["rollouts"] == (rollouts if row in ("greedy", "maj@4") else None)


def test_a_vote_of_plain_lm_eval_rests_on_all_repeats_and_one_text_on_one(tmp_path: Path) -> None:
    filters = [
        {"name": "vote", "filter": [{"function": "regex"}, {"function": "majority_vote"}]},
        {"name": "four", "filter": [{"function": "take_first_k", "k": 4}, {"function": "majority_vote"}]},
        {"name": "one", "filter": [{"function": "regex"}, {"function": "take_first"}]},
    ]
    content = {
        "results": {"toy": {f"exact_match,{each['name']}": 0.5 for each in filters}},
        "configs": {"toy": {"repeats": 16, "filter_list": filters}},
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    found = {row["strategy"]: row["rollouts"] for row in json.loads(run("compare", path, "--json"))}
    assert found == {"vote": 16, "four": 4, "one": 1}


def test_a_selector_chooses_among_our_rows_of_a_results_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    rows = {"exact_match,majority": 0.5, "exact_match,greedy": 0.25, "truncated,pool": 0.0}
    path.write_text(json.dumps({"results": {"toy": rows}}))
    [found] = json.loads(run("compare", path, "--selector", "greedy", "--json"))
    assert (found["strategy"], found["value"]) == ("greedy", 0.25)
    assert main_code(["compare", str(path), "--selector", "oracle"]) == 2
