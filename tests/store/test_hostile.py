"""Files of strangers and texts of models: nothing of them runs, moves a cursor or becomes a formula."""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from eglr_selectors.verifiers.learned import LearnedVerifier
from stored_runs import ANSWERS, import_lines, small_head, small_pool, write_small
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.cli.export import write_export
from lm_eval_eglr.reports.leaderboard import leaderboard
from lm_eval_eglr.reports.leaderboard_table import leaderboard_table
from lm_eval_eglr.reports.selector_rows import strategy_row
from lm_eval_eglr.reports.tables import render
from lm_eval_eglr.store import Manifest, PoolKey, StoreWriter, read_store
from lm_eval_eglr.store.atomic_files import digest, with_checksum

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("lm_eval_eglr", "selectors", "packaging", "tasks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
HOSTILE = "=HYPERLINK(\"http://x\")\x1b]0;owned\x07\x1b[2J\u202e</script><b>__import__('os').abort()"
# Not "compile": selectors written by the user are parsed with `ast`, which compiles and does not run.
RUNS_CODE = {"pickle.find_class", "exec", "marshal.loads", "os.system", "subprocess.Popen"}
DEEP = "[" * 100_000

recorded: list[str] | None = None


def remember(event: str, arguments: tuple[Any, ...]) -> None:
    if recorded is not None and event in RUNS_CODE:
        recorded.append(f"{event} {str(arguments)[:200]}")


sys.addaudithook(remember)  # cannot be taken away again


@contextmanager
def audited() -> Iterator[list[str]]:
    """Collects what the interpreter reports of code that is run from data."""
    global recorded
    recorded = found = []
    try:
        yield found
    finally:
        recorded = None


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return str(result.output)


@pytest.fixture
def hostile_store(tmp_path: Path) -> Path:
    """Everything in it that is text is hostile."""
    writer = StoreWriter(tmp_path / "store")
    heads = [
        small_head(number, task=f"../../{HOSTILE}", fields={"problem": HOSTILE, "subject": HOSTILE})
        for number in range(4)
    ]
    with writer.writing(Manifest({"model": HOSTILE, "seed": 0}, {"python": HOSTILE})):
        writer.plan(heads)
        writer.describe_tokens(lambda: [HOSTILE] * 12)
        for number, head in enumerate(heads):
            writer.append(head, small_pool(ANSWERS[number], number, wrap=HOSTILE + " {}"))
    return tmp_path / "store"


def test_the_audit_would_notice() -> None:
    with audited() as found:
        eval("1 + 1")
        pickle.loads(pickle.dumps(Path("x")))
    assert {line.split()[0] for line in found} == {"exec", "pickle.find_class"}


def test_nothing_of_a_store_or_a_verifier_is_run(hostile_store: Path, tmp_path: Path) -> None:
    """Everything is done twice, because the first time modules are imported, which runs code of ours."""
    train = write_small(tmp_path / "train", ANSWERS * 4)
    run("fit-verifier", train, "-o", tmp_path / "verifier.skops")
    rounds = iter(("first", "second"))

    def use() -> None:
        store = read_store(hostile_store)
        [task] = store.tasks
        documents = store.documents(task)
        rows = [strategy_row(HOSTILE, task, documents, name) for name in ("majority", "entropy_weighted")]
        for form in ("csv", "html", "markdown"):
            assert render(leaderboard_table(leaderboard(rows, None)), form)
        write_export(store, "jsonl", tmp_path / "rows.jsonl")
        again = tmp_path / next(rounds)
        assert import_lines(tmp_path / "rows.jsonl", again) == len(documents)
        verifier = LearnedVerifier.load(tmp_path / "verifier.skops")
        for document in documents:
            verifier.score(document.fields["problem"], document.parsed)

    use()
    with audited() as found:
        use()
    assert found == []


EXEMPT = {
    "rounds.py": {"pickle"},  # packs finished pools in the memory of its own process, in no file
    # What processes of one run tell each other, as torch.distributed's own gather_object does.
    "tensor_parallel.py": {"pickle"},
}
BANNED = {
    "imports": {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"},
    "calls": {"eval", "exec", "compile", "__import__", "load_pickle", "unsafe_load", "full_load"},
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_can_run_data(path: Path) -> None:
    """Without looking into what we depend on; the test above does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
            assert not names & (BANNED["imports"] - EXEMPT.get(path.name, set()))
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in BANNED["imports"]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in BANNED["calls"]
            assert called not in ("torch.load", "yaml.load")
            for keyword in node.keywords:
                constant = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                assert not (constant and keyword.arg in ("allow_pickle", "trust_remote_code"))


@pytest.mark.parametrize(
    "command",
    [
        ["verify-store"],
        ["verify-store", "--json"],
        ["select"],
        ["select", "--json"],
        *(["compare", "--format", form] for form in ("rich", "markdown", "csv", "latex", "html", "json")),
    ],
    ids=" ".join,
)
def test_no_table_or_message_controls_a_terminal(command: list[str], hostile_store: Path) -> None:
    shown = run(*command, hostile_store)
    assert "HYPERLINK" in shown
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)


def test_no_message_about_a_wrong_name_controls_a_terminal(hostile_store: Path) -> None:
    for options in (["--selector", HOSTILE], ["--task", HOSTILE]):
        shown = run("select", hostile_store, *options, code=2)
        assert shown.count("\n") == 1
        assert not re.search("[\x00-\x09\x0b-\x1f]", shown)


def test_no_cell_of_a_csv_file_is_a_formula(hostile_store: Path) -> None:
    shown = run("compare", "--format", "csv", hostile_store)
    assert "'=HYPERLINK" in shown
    for cell in re.split(r'[,\n]"?', shown):
        assert not cell.startswith(("=", "+", "@")), cell
        assert not cell.startswith("-") or re.fullmatch(r"-[\d.]+(e[-+]?\d+)?", cell), cell


def test_names_become_safe_file_names(hostile_store: Path) -> None:
    names = [path.name for path in (hostile_store / "pools").iterdir()]
    assert len(names) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9_.%-]{1,160}", name) for name in names)
    assert all(not name.startswith(".") for name in names)
    assert sorted(path.name for path in hostile_store.parent.iterdir()) == ["store"]
    for task in ("a/b", "a\\b", "con", "a" * 500, "\x00", "é"):
        assert re.fullmatch(r"[A-Za-z0-9_.%-]{1,160}", PoolKey(task, 1).stem)


def nested(folder: Path) -> list[tuple[Callable[[], object], str]]:
    store = write_small(folder / "store")
    (store / "plan.0.json").write_text(DEEP)
    (folder / "deep.json").write_text(DEEP)
    return [
        (lambda: run("select", store, code=1), "damaged"),
        (lambda: run("compare", folder / "deep.json", code=2), "deep.json"),
        (lambda: run("calibrate", "--prompts", folder / "deep.json", code=2), "line 1"),
    ]


@pytest.mark.parametrize("number", range(3))
def test_json_of_any_depth_is_one_line(number: int, tmp_path: Path) -> None:
    """Python's reader gives up on depth with an error that is no ValueError."""
    use, wanted = nested(tmp_path)[number]
    shown = str(use())
    assert wanted in shown
    assert shown.count("\n") == 1


def test_lines_of_any_depth_are_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.jsonl").write_text(DEEP)
    with pytest.raises(ValueError, match="line 1"):
        import_lines(tmp_path / "deep.jsonl", tmp_path / "again")
    from lm_eval_eglr.problems.dataset import read_jsonl

    with pytest.raises(ValueError, match="line 1: not JSON"):
        read_jsonl(tmp_path / "deep.jsonl")


def test_a_pool_whose_columns_are_wrong_is_damaged(tmp_path: Path) -> None:
    """A stranger's file with a right checksum and wrong content is named, not a traceback."""
    store = write_small(tmp_path / "store")
    shutil.copytree(store, tmp_path / "other")
    (store / "manifest.json").write_bytes(
        with_checksum({"format": "eglr-rollouts", "version": 1, "fingerprint": 3})
    )
    assert "manifest.json: expected a fingerprint" in run("select", store, code=1)
    (tmp_path / "other" / "plan.0.json").write_bytes(with_checksum({"pools": {"toy": [[1]]}}))
    assert "not a plan of a rollout store" in run("select", tmp_path / "other", code=1)
    for data in (b"PAR1", pq_bytes({"task": ["toy"]}), pq_bytes({"tokens": [1]})):
        for path in (tmp_path / "other" / "pools").iterdir():
            path.unlink()
        name = f"toy.000000.0.{'0' * 16}.{digest(data)}.parquet"
        (tmp_path / "other" / "pools" / name).write_bytes(data)
        shown = run("verify-store", tmp_path / "other", code=1)
        assert "not a pool of a rollout store" in shown
        assert "Traceback" not in shown


def pq_bytes(columns: dict[str, list[Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("loaded", ["hf-eglr", "PoolDecoder"])
def test_a_models_own_code_does_not_run(loaded: str, tmp_path: Path) -> None:
    from stored_runs import make_tiny

    from lm_eval_eglr.decoding import PoolDecoder
    from lm_eval_eglr.harness.model import EGLRLM

    make_tiny(tmp_path)
    folder = tmp_path / "model"
    (folder / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))
    if loaded == "hf-eglr":
        EGLRLM(str(folder), device="cpu")
    else:
        PoolDecoder.from_pretrained(str(folder))
    assert not (tmp_path / "ran").exists()
