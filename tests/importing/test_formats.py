"""Each format: a file that its tool wrote becomes the pools in it, and what is not understood is named.

The files were written by lm_eval 0.4.13 with the demo model, Inspect 0.3.285 with its mock model, lighteval
0.13.0 with the demo model, search-and-learn at 6f81cac with a stub for the model and its reward, and by the
server of vLLM 0.32.0 with a random model.
"""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from eglr_selectors import Cell, Rules, parse_pools, select

from lm_eval_eglr.importing import FORMATS, Imported, ImportOptions, format_of, read_rollouts
from lm_eval_eglr.importing.inspect_logs import Log, _head, _samples
from lm_eval_eglr.store.jsonl import to_records

FILES = Path(__file__).parent / "files"
LM_EVAL = FILES / "lm_eval"
STOCK = FILES / "lm_eval_stock"
INSPECT = FILES / "inspect_0.3.285.eval"
SEARCH = FILES / "best_of_n_completions.jsonl"


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def chat(texts: list[str], **more: Any) -> dict[str, Any]:
    """A response of /v1/chat/completions with log-probabilities of two tokens each."""
    token = {"token": "a", "logprob": -0.5, "top_logprobs": [{"logprob": -0.1 * i} for i in range(20)]}
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "length" if i else "stop",
            "logprobs": {"content": [token, {**token, "logprob": -1.5}]},
        }
        for i, text in enumerate(texts)
    ]
    return {"model": "served", "choices": choices, **more}


def text(imported: Imported) -> list[list[str]]:
    return [[rollout.text for rollout in stored.pool] for stored in imported.pools]


def test_lm_eval_samples_are_pools_under_the_tasks_own_rules() -> None:
    imported = read_rollouts([LM_EVAL])
    assert imported.model == "demo_model"
    assert [stored.key.place for stored in imported.pools] == [("demo_eglr", i, 0) for i in range(8)]
    for stored in imported.pools:
        assert stored.key.rules == Rules.named("integer")
        assert stored.key.fallbacks == ("hash", "phrase", "last_number")
        assert [rollout.cell for rollout in stored.pool] == [Cell(0, 0.7, i) for i in range(4)]
        assert stored.pool.prompt.startswith("<|user|>")
        assert stored.key.reference == stored.key.fields["answer"]
    sample = json.loads(next(LM_EVAL.rglob("samples_*.jsonl")).read_text().splitlines()[0])
    assert text(imported)[0] == sample["resps"][0]


def test_selecting_from_lm_eval_samples_gives_what_lm_eval_logged() -> None:
    logged = {
        sample["doc_id"]: sample
        for line in next(LM_EVAL.rglob("samples_*.jsonl")).read_text().splitlines()
        if (sample := json.loads(line))["filter"] == "majority"
    }
    for stored in read_rollouts([LM_EVAL]).pools:
        key = stored.key
        chosen = select(stored.pool, "majority", rules=key.rules, fallbacks=key.fallbacks)
        assert chosen.answer == logged[key.doc_id]["answer"]


def test_a_worked_solution_is_reduced_to_its_answer_and_multiple_choice_is_left_out() -> None:
    imported = read_rollouts([STOCK])
    assert [stored.key.reference for stored in imported.pools] == ["4", "7", "10", "13", "16", "19"]
    assert {stored.key.task for stored in imported.pools} == {"toy_gsm"}
    assert imported.pools[0].key.fields["problem"].startswith("Tom has 3 apples")
    assert "toy_mc is scored by log-likelihoods" in imported.notes[0]
    with pytest.raises(ValueError, match="toy_mc is scored by log-likelihoods"):
        read_rollouts([next(STOCK.rglob("samples_toy_mc*"))])


def test_the_newest_of_several_runs_is_read(tmp_path: Path) -> None:
    shutil.copytree(STOCK, tmp_path / "out")
    old = next((tmp_path / "out").rglob("samples_toy_gsm*"))
    new = old.with_name(old.name.replace("2026-", "2027-"))
    lines = [line.replace('"resps": [[', '"resps": [["newest", ') for line in old.read_text().splitlines()]
    new.write_text("\n".join(lines))
    imported = read_rollouts([tmp_path / "out"])
    assert {texts[0] for texts in text(imported)} == {"newest"}
    assert any("1 older files of samples" in note for note in imported.notes)
    assert len(text(read_rollouts([old]))[0]) == 3


def test_runs_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    shutil.copytree(STOCK / "demo_model", tmp_path / "out" / "one")
    shutil.copytree(STOCK / "demo_model", tmp_path / "out" / "two")
    with pytest.raises(ValueError, match=r"runs of several models \(one, two\)"):
        read_rollouts([tmp_path / "out"])


def test_epochs_of_inspect_are_rollouts_with_their_log_probabilities() -> None:
    imported = read_rollouts([INSPECT])
    assert imported.model == "mockllm/model"
    assert [stored.key.doc_id for stored in imported.pools] == [0, 1, 2, 3]
    for stored in imported.pools:
        assert [rollout.cell for rollout in stored.pool] == [Cell(0, 0.7, i) for i in range(3)]
        assert stored.key.reference == "5"
        assert stored.key.fields["level"] == stored.key.doc_id
        assert json.loads(stored.pool.prompt)[0] == {"role": "system", "content": "Be brief."}
        for rollout in stored.pool:
            assert rollout.finish_reason in ("stop", "length")
            assert rollout.telemetry is not None
            assert rollout.telemetry.token_logprobs == pytest.approx((-0.1, -0.2, -0.3))
            assert rollout.telemetry.mean_confidence == pytest.approx(1.05)  # mean of 0.1 .. 2.0
            assert math.isnan(rollout.telemetry.mean_entropy)
    reasons = [rollout.finish_reason for stored in imported.pools for rollout in stored.pool]
    assert reasons.count("length") == 3


def test_a_json_log_of_inspect_is_the_same_as_its_archive(tmp_path: Path) -> None:
    log = Log(INSPECT, _head(INSPECT))
    (tmp_path / "log.json").write_text(json.dumps({**log.head, "samples": list(_samples(log))}))
    archived = read_rollouts([INSPECT]).pools
    # Undefined figures are NaN, which equals nothing.
    read = read_rollouts([tmp_path / "log.json"]).pools
    assert repr(list(to_records(read))) == repr(list(to_records(archived)))


def test_an_unfinished_or_damaged_log_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "half.eval", "w") as archive:
        archive.writestr("_journal/start.json", "{}")
    with pytest.raises(ValueError, match="an unfinished log"):
        read_rollouts([tmp_path / "half.eval"])
    (tmp_path / "torn.eval").write_bytes(INSPECT.read_bytes()[:9000])
    with pytest.raises(ValueError, match="not a log of Inspect"):
        read_rollouts([tmp_path / "torn.eval"])
    data = bytearray(INSPECT.read_bytes())
    data[1500:1600] = bytes(100)
    (tmp_path / "bad.eval").write_bytes(bytes(data))
    with pytest.raises(ValueError, match="is damaged"):
        read_rollouts([tmp_path / "bad.eval"])


def lighteval_output(folder: Path) -> Path:
    """The two files where lighteval puts them."""
    date = "2026-11-28T02-09-27.094611"
    details = folder / "out" / "details" / "demo_model" / date / f"details_toy_demo|0_{date}.parquet"
    results = folder / "out" / "results" / "demo_model" / f"results_{date}.json"
    for path, name in ((details, "lighteval_0.13.0.parquet"), (results, "lighteval_0.13.0.json")):
        path.parent.mkdir(parents=True)
        shutil.copy(FILES / name, path)
    return folder / "out"


def test_details_of_lighteval_are_pools_with_token_ids(tmp_path: Path) -> None:
    out = lighteval_output(tmp_path)
    imported = read_rollouts([out])
    assert imported.model == "demo_model"
    rows = {
        int(row["doc"]["id"]): row for row in pq.read_table(FILES / "lighteval_0.13.0.parquet").to_pylist()
    }
    assert [stored.key.place for stored in imported.pools] == [("toy_demo|0", i, 0) for i in range(5)]
    for stored in imported.pools:
        row = rows[stored.key.doc_id]
        assert text(imported)[stored.key.doc_id] == row["model_response"]["text"]
        assert stored.key.reference == row["doc"]["choices"][0]
        assert stored.key.fields["level"] == row["doc"]["specific"]["level"]
        assert [rollout.cell for rollout in stored.pool] == [Cell(0, 0.7, i) for i in range(4)]
        ends = [rollout.tokens[-1] for rollout in stored.pool]
        assert all(rollout.tokens[-2] != end for rollout, end in zip(stored.pool, ends, strict=True))
    alone = read_rollouts([next(out.rglob("*.parquet"))])
    assert repr(alone.pools) == repr(imported.pools)


def test_pass_at_1_of_lighteval_is_the_mean_over_its_rollouts() -> None:
    (path,) = FILES.glob("lighteval*.parquet")
    theirs = [row["metric"]["pass@k:k=1&n=4"] for row in pq.read_table(path).to_pylist()]
    pools = read_rollouts([path]).pools
    keys = [stored.key for stored in pools]
    parsed = parse_pools(
        [stored.pool for stored in pools], [key.reference for key in keys], fallbacks=keys[0].fallbacks
    )
    ours = [sum(map(bool, each.correct)) / len(each) for each in parsed]
    assert sorted(ours) == pytest.approx(sorted(theirs))


def test_selectors_agree_with_search_and_learn_on_its_own_file() -> None:
    imported = read_rollouts([SEARCH])
    theirs = [json.loads(line) for line in SEARCH.read_text().splitlines()]
    for stored, record in zip(imported.pools, theirs, strict=True):
        assert text(imported)[stored.key.doc_id] == record["completions"]
        assert [rollout.score for rollout in stored.pool] == record["agg_scores"]
        for selector, column in (("best_of_n", "pred_naive@4"), ("weighted_vote", "pred_weighted@4")):
            assert rf"\boxed{{{select(stored.pool, selector).answer}}}" == record[column]
    assert imported.pools[0].key.fields["subject"] == "sums"


def test_texts_with_scores_and_reasons(tmp_path: Path) -> None:
    record = {
        "prompt": "2+3?",
        "texts": [r"\boxed{5}", "no"],
        "reference": "so #### 5",
        "scores": [0.5, None],
        "finish_reasons": ["stop", "length"],
        "temperature": 0.7,
        "level": 2,
    }
    (pool,) = read_rollouts([write_lines(tmp_path / "sums.jsonl", [record])]).pools
    assert (pool.key.task, pool.key.reference, pool.key.fields["level"]) == ("sums", "5", 2)
    assert [(each.score, each.finish_reason, each.cell) for each in pool.pool] == [
        (0.5, "stop", Cell(0, 0.7, 0)),
        (None, "length", Cell(0, 0.7, 1)),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": []}, "line 2: texts: expected a list of texts, at least one"),
        ({"texts": "5"}, "line 2: texts: expected a list of texts, at least one"),
        ({"prompt": None}, "line 2: prompt=None: expected a text"),
        ({"scores": [1, 2]}, "line 2: scores: expected a list of 1 values"),
        ({"scores": [math.nan]}, "line 2: scores: nan: expected a number"),
        ({"finish_reasons": ["done"]}, "line 2: finish_reasons: 'done'"),
        ({"temperature": -1}, "line 2: temperature=-1: expected a number >= 0"),
        ({"doc_id": "x"}, "line 2: doc_id='x': expected an integer >= 0"),
    ],
)
def test_a_wrong_line_of_texts_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    good = {"prompt": "2+3?", "texts": ["5"]}
    with pytest.raises(ValueError, match=message):
        read_rollouts([write_lines(tmp_path / "x.jsonl", [good, {**good, **change}])])


def test_responses_with_their_requests_are_pools_by_prompt(tmp_path: Path) -> None:
    def request(question: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": question}], "temperature": 0.7}

    records = [
        {"request": request("2+3?"), "response": chat(["5", "6"]), "reference": "5"},
        {"request": request("1+1?"), "response": chat(["2"]), "reference": "2"},
        {"request": request("2+3?"), "response": chat(["5"]), "reference": "5"},
    ]
    imported = read_rollouts([write_lines(tmp_path / "r.jsonl", records)])
    assert text(imported) == [["5", "6", "5"], ["2"]]
    first = imported.pools[0]
    assert (first.pool.prompt, first.key.reference, imported.model) == ("2+3?", "5", "served")
    assert [rollout.cell for rollout in first.pool] == [Cell(0, 0.7, i) for i in range(3)]
    telemetry = first.pool[0].telemetry
    assert telemetry is not None
    assert (telemetry.mean_logprob, telemetry.mean_confidence) == pytest.approx((-1.0, 0.95))
    assert [rollout.finish_reason for rollout in first.pool] == ["stop", "length", "stop"]


def test_responses_of_vllm_keep_log_probabilities_and_token_ids() -> None:
    path = FILES / "vllm_0.32.0_responses.jsonl"
    imported = read_rollouts([path])
    assert [(stored.pool.prompt, stored.key.reference) for stored in imported.pools] == [
        ("2+3?", "5"),
        ("1+1?", "2"),
    ]
    for stored, line in zip(imported.pools, path.read_text().splitlines(), strict=True):
        choices = json.loads(line)["response"]["choices"]
        for rollout, choice in zip(stored.pool, choices, strict=True):
            assert (rollout.text, rollout.finish_reason) == (choice["message"]["content"], "length")
            assert rollout.tokens == tuple(choice["token_ids"])
            assert rollout.telemetry is not None
            drawn = [entry["logprob"] for entry in choice["logprobs"]["content"]]
            assert rollout.telemetry.token_logprobs == tuple(drawn)
            assert rollout.telemetry.mean_confidence > 0


def test_a_batch_takes_its_prompts_from_the_file_of_requests(tmp_path: Path) -> None:
    body = {"model": "served", "messages": [{"role": "user", "content": "2+3?"}]}
    requests = [{"custom_id": f"q{i}", "body": body, "reference": "5"} for i in range(2)]
    results = [
        {"custom_id": f"q{i}", "response": {"status_code": 200, "body": chat([str(5 + i)])}} for i in range(2)
    ]
    failed = {"custom_id": "q2", "response": {"status_code": 500, "body": {}}, "error": None}
    path = write_lines(tmp_path / "out.jsonl", [*results, failed])
    asked = write_lines(tmp_path / "in.jsonl", requests)
    imported = read_rollouts([path], options=ImportOptions(requests=asked))
    assert text(imported) == [["5", "6"]]
    assert imported.pools[0].key.reference == "5"
    assert imported.notes == ("1 requests that failed were left out",)
    assert any("--requests" in note for note in read_rollouts([path]).notes)
    with pytest.raises(ValueError, match="custom_id='q1': the file of requests has no such one"):
        read_rollouts([path], options=ImportOptions(requests=write_lines(tmp_path / "few", requests[:1])))


def test_a_completion_with_token_ids_as_vllm_returns_them(tmp_path: Path) -> None:
    choice = {
        "index": 0,
        "text": "5",
        "finish_reason": "stop",
        "token_ids": [7, 8],
        "logprobs": {"token_logprobs": [-0.5, -1.5], "top_logprobs": [{"a": -0.5}, {"b": -1.5}]},
    }
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"model": "m", "choices": [choice], "prompt": "2+3?"}, indent=1))
    (pool,) = read_rollouts([path]).pools
    telemetry = pool.pool[0].telemetry
    assert pool.pool[0].tokens == (7, 8)
    assert telemetry is not None
    assert telemetry.mean_logprob == -1.0
    assert math.isnan(telemetry.mean_confidence)  # one alternative is not twenty


def test_no_format_takes_the_files_of_another() -> None:
    sources = {
        "lm_eval": LM_EVAL,
        "inspect": INSPECT,
        "search_and_learn": SEARCH,
        "lighteval": FILES / "lighteval_0.13.0.parquet",
    }
    for name, path in sources.items():
        assert format_of(path) == name
        assert [other for other, form in FORMATS.items() if form.recognises(path)] == [name]


def test_what_is_not_understood_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file or folder"):
        read_rollouts([tmp_path / "absent"])
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match="of no known format"):
        read_rollouts([tmp_path / "notes.txt"])
    with pytest.raises(ValueError, match="format='csv': expected one of lm_eval, texts"):
        read_rollouts([INSPECT], "csv")
    odd = write_lines(tmp_path / "odd.jsonl", [{"doc_id": 0, "doc": {}, "resps": 5, "filter": "none"}])
    with pytest.raises(ValueError, match="not as lm_eval is known here"):
        read_rollouts([odd])
    with pytest.raises(ValueError, match="rollouts of several models"):
        read_rollouts([INSPECT, LM_EVAL])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"", "x.jsonl: an empty file"),
        ("x.jsonl", b"\n \n", "x.jsonl: an empty file"),
        ("x.jsonl", b'{"prompt": "a", "tex\n{"prompt": "a", "texts": ["b"]}', "x.jsonl, line 1: not JSON"),
        ("x.jsonl", b'{"prompt": "a", "texts": ["b"]}\n\n{"prompt', "x.jsonl, line 3: not JSON"),
        ("x.jsonl", b'{"prompt": "a", "texts": ["b"]}\n{"\xff"}', "x.jsonl, line 2: not UTF-8 text"),
        (
            "x.jsonl",
            b'{"question": "a", "replies": ["b"]}',
            "records of question, replies, of no known",
        ),
        ("x.json", b'{"results": {}, "configs": {}}', "results of lm_eval without samples"),
        ("x.csv", b"prompt,text", "x.csv: no JSON, of no known format"),
        ("x.parquet", b"PAR1", "x.parquet: cannot be read as parquet"),
        (
            "x.jsonl",
            b'{"prompt": "a", "texts": ["b"], "reference": "\\ud800"}',
            "jsonl: reference: has a lone",
        ),
    ],
)
def test_why_a_file_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_rollouts([tmp_path / name])


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_source_is_no_store_whatever_its_format(tmp_path: Path, form: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.jsonl").touch()
    for source in (tmp_path / "folder", tmp_path / "file.jsonl"):
        with pytest.raises(ValueError, match=str(source)):
            read_rollouts([source], form)


def test_texts_may_be_a_list_or_spread_over_lines_or_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    records = [{"prompt": "2+3?", "texts": ["5", "6"]}, {"prompt": "1+1?", "texts": ["2"]}]
    path = tmp_path / "x.json"
    written = [json.dumps(records), json.dumps(records, indent=1), "\n".join(map(json.dumps, records))]
    for content in (*written, "\ufeff" + written[2]):
        path.write_text(content, encoding="utf-8")
        assert text(read_rollouts([path])) == [["5", "6"], ["2"]]


def test_a_folder_with_files_of_two_tools_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="has inspect and search_and_learn; name the files"):
        read_rollouts([FILES])
    assert read_rollouts([FILES], "inspect").model == "mockllm/model"


def test_a_reference_under_another_name_is_pointed_out(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{"prompt": "2+3?", "texts": ["5"], "answer": "5"}])
    assert any('if "answer" is it' in note for note in read_rollouts([path]).notes)
    with pytest.raises(ValueError, match=r"requests=.*: for a batch's output"):
        read_rollouts([path], options=ImportOptions(requests=path))
