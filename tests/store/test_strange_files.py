"""A stranger's file with a right checksum is what a run would have written, or all refuse it in one line."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored_runs import ANSWERS, MANIFEST, import_lines, small_head, small_pool, write_small
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app
from lm_eval_eglr.store import StoreError, StoreWriter, read_store
from lm_eval_eglr.store.atomic_files import digest, with_checksum
from lm_eval_eglr.store.jsonl import to_records
from lm_eval_eglr.store.pool_file import decode, decode_cost
from lm_eval_eglr.store.vocabulary import read_vocabulary, write_vocabulary

ODD: list[Any] = [None, [], {}, "x", -1, True, [1], float("nan"), float("inf"), 10**400, 1.5]


def commands(store: Path) -> Iterator[tuple[str, ...]]:
    yield "verify-store", str(store)
    yield "select", str(store)
    yield "compare", str(store), "--format", "markdown"
    yield "export", str(store), "--format", "jsonl", "-o", str(store.parent / "rows.jsonl")
    yield "report", str(store), "-o", str(store.parent / "page.html")


def codes(store: Path, every: bool = False) -> set[int]:
    """Exit codes of two commands, or of all; none may end with a traceback, and a refusal is one line."""
    found = set()
    for command in list(commands(store))[: None if every else 2]:
        result = CliRunner().invoke(app, list(command))
        assert result.exception is None or isinstance(result.exception, SystemExit), (
            command,
            result.exception,
        )
        if result.exit_code and command[0] != "verify-store":
            assert result.output.count("\n") == 1, result.output
        found.add(result.exit_code)
    return found


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table], **options: Any) -> Path:
    """A pool's file with other columns and a right checksum."""
    buffer = io.BytesIO()
    pq.write_table(change(pq.read_table(path)), buffer, **options)
    stem = ".".join(path.name.split(".")[:4])
    path.unlink()
    path = path.with_name(f"{stem}.{digest(buffer.getvalue())}.parquet")
    path.write_bytes(buffer.getvalue())
    return path


def replaced(name: str, values: list[Any], kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        column = pa.array(values * (table.num_rows // len(values)), kind or table.schema.field(name).type)
        return table.set_column(table.column_names.index(name), name, column)

    return change


def manifest_with(store: Path, **changes: Any) -> None:
    content = json.loads((store / "manifest.json").read_bytes())
    del content["checksum"]
    (store / "manifest.json").write_bytes(with_checksum({**content, **changes}))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("sound") / "store", ANSWERS[:2])


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize("key", ["of", "pools", "without_cost", "cost", "flops", "rows", None])
def test_strange_totals_are_refused_by_every_command(key: str | None, store: Path) -> None:
    original = json.loads((store / "manifest.json").read_bytes())["totals"]
    for odd in ODD:
        totals: Any = {**original, "cost": dict(original["cost"])}
        if key is None:
            totals = odd
        else:
            (totals if key in totals else totals["cost"])[key] = odd
        sensible = (
            (key == "of" and odd == "x") or (key == "flops" and odd == 1.5) or (key is None and odd is None)
        )
        manifest_with(store, totals=totals)
        if sensible:
            assert codes(store) <= {0, 1}
        else:
            assert codes(store) == {1}, odd


def test_what_later_versions_add_is_left_unread(store: Path) -> None:
    original = json.loads((store / "manifest.json").read_bytes())["totals"]
    manifest_with(store, totals={**original, "new": 1, "cost": {**original["cost"], "new": [2]}}, more="x")
    path = next((store / "pools").iterdir())
    rewritten(path, lambda table: table.append_column("new", pa.array([["x"]] * table.num_rows)))
    assert len(read_store(store).pools) == 2


def test_a_fingerprint_may_hold_anything(store: Path) -> None:
    for odd in ODD:
        manifest_with(store, fingerprint={"model": odd, "seed": odd}, versions={"python": odd})
        assert codes(store, every=odd in (None, [1])) == {0}, odd


BAD_COLUMNS = {
    **{
        f"{name} of {kind}": replaced(name, values, kind)
        for name, values, kind in [
            ("text", [["a"]], pa.list_(pa.string())),
            ("text", [1], pa.int64()),
            ("prompt", [b"a"], pa.binary()),
            ("doc_id", ["0"], pa.string()),
            ("doc_id", [0], pa.int32()),
            ("tokens", [[1.0]], pa.list_(pa.float64())),
            ("tokens", [1], pa.int64()),
            ("temperature", ["0"], pa.string()),
            ("reference", [["1"]], pa.list_(pa.string())),
            ("fallbacks", ["hash"], pa.string()),
            ("uses_reference", [1], pa.int64()),
            ("pool_flops", [1], pa.int64()),
        ]
    },
    **{
        f"{name}={values!r:.40}": replaced(name, values)
        for name, values in [
            ("text", [None]),
            ("task", [None]),
            ("task", ["toy", "other"]),
            ("prompt", ["a", "b"]),
            ("place", [0]),
            ("place", [6, 1, 2, 3, 4, 5]),
            ("span", [-1]),
            ("sample", [None]),
            ("temperature", [-1.0]),
            ("temperature", [float("nan")]),
            ("tokens", [None]),
            ("tokens", [[1, None]]),
            ("tokens", [[-1]]),
            ("token_iterations", [[None]]),
            ("finish_reason", ["because"]),
            ("path", ["1.x"]),
            ("ties", [-3]),
            ("settings", ["[]"]),
            ("settings", ["[" * 100_000]),
            ("fields", ["null"]),
            ("fields", ['"x"']),
            ("rules", ["[]"]),
            ("rules", ['{"form": "other"}']),
            ("rules", ['{"new": 1}']),
            ("fallbacks", [None]),
            ("fallbacks", [[None]]),
            ("pool_flops", [float("inf")]),
            ("pool_flops", [1e6, 2e6]),
            ("pool_tokens", [-1]),
        ]
    },
    "no rows": lambda table: table.slice(0, 0),
    "no text": lambda table: table.drop_columns(["text"]),
    "text twice": lambda table: table.append_column("text", table["text"]),
}


@pytest.mark.parametrize("change", BAD_COLUMNS.values(), ids=BAD_COLUMNS)
def test_columns_that_no_run_writes_are_refused_by_every_reader(
    change: Callable[[pa.Table], pa.Table], store: Path
) -> None:
    path = rewritten(next((store / "pools").iterdir()), change)
    with pytest.raises(StoreError, match="not a pool of a rollout store"):
        decode(path)
    with pytest.raises(StoreError):
        read_store(store)
    assert CliRunner().invoke(app, ["verify-store", str(store)]).exit_code == 1
    writer = StoreWriter(store)
    with writer.writing(MANIFEST):
        assert [writer.load(small_head(number)) is None for number in range(2)].count(True) == 1


def test_a_problems_fields_may_hold_anything(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store")
    with writer.writing(MANIFEST):
        for number, odd in enumerate([*ODD, "\ud800"]):
            head = small_head(number, fields={"problem": odd, "level": odd, "subject": odd})
            writer.append(head, small_pool(ANSWERS[number % 5]))
    assert codes(tmp_path / "store", every=True) == {0}


def test_a_file_under_another_documents_name_is_never_served(store: Path) -> None:
    """Its bytes are what was written and match the checksum in the name, but it is another document."""
    first, second = sorted((store / "pools").iterdir())
    shutil.copy(first, second.with_name(".".join([*second.name.split(".")[:4], *first.name.split(".")[4:]])))
    second.unlink()
    assert codes(store) == {1}
    with pytest.raises(StoreError, match="its name is not that of its content"):
        read_store(store)
    writer = StoreWriter(store)
    with writer.writing(MANIFEST):
        writer.plan([small_head(number) for number in range(2)])
        assert writer.load(small_head(0)) == small_pool(ANSWERS[0])
        assert writer.load(small_head(1)) is None
        writer.append(small_head(1), small_pool(ANSWERS[1], 1))
    assert codes(store) == {0}


@pytest.mark.parametrize("wrong", [0, 2, 3], ids=["task", "repeat", "identity"])
def test_any_part_of_a_name_that_is_not_the_contents_is_noticed(wrong: int, store: Path) -> None:
    first = min((store / "pools").iterdir())
    parts = first.name.split(".")
    parts[wrong] = {0: "toys", 2: "1", 3: "0" * 16}[wrong]
    renamed = first.rename(first.with_name(".".join(parts)))
    for read in (decode, decode_cost):
        with pytest.raises(StoreError, match="its name is not that of its content"):
            read(renamed)
    writer = StoreWriter(store)
    with writer.writing(MANIFEST):
        writer.plan([small_head(0)])  # a name is not enough to refuse the document
        assert writer.load(small_head(0)) is None


def test_a_round_of_another_document_is_not_served(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path)
    with writer.writing(MANIFEST):
        writer.append_round(small_head(0), small_pool(ANSWERS[0]))
        [path] = (tmp_path / "rounds").iterdir()
        parts = path.name.split(".")
        path.rename(path.with_name(".".join([*small_head(1).stem.split("."), *parts[4:]])))
    with StoreWriter(tmp_path).writing(MANIFEST) as again:
        assert again.load_round(small_head(1)) is None
    assert list((tmp_path / "rounds").glob(".damaged-*"))


VOCABULARIES = {
    "no piece": pa.table({"other": ["a"]}),
    "numbers": pa.table({"piece": [1]}),
    "null": pa.table({"piece": ["a", None]}),
}


@pytest.mark.parametrize("table", VOCABULARIES.values(), ids=VOCABULARIES)
def test_a_vocabulary_of_other_columns_is_refused(table: pa.Table, store: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    (store / f"vocabulary.{digest(buffer.getvalue())}.parquet").write_bytes(buffer.getvalue())
    with pytest.raises(StoreError, match="not a vocabulary of a rollout store"):
        read_vocabulary(store)
    assert CliRunner().invoke(app, ["verify-store", str(store)]).exit_code == 1
    write_vocabulary(store, lambda: ["a", "b"], ".0.part")  # a run sets it aside and makes it again
    assert read_vocabulary(store) == ["a", "b"]


@pytest.mark.parametrize(
    "plan",
    [{"toy": [[1]]}, {"toy": [[1.5, 0]]}, {"toy": [[True, 0]]}, {"toy": [["1", 0]]}, [], None, {"toy": 3}],
)
def test_a_strange_plan_is_refused_and_made_again(plan: Any, store: Path) -> None:
    (store / "plan.0.json").write_bytes(with_checksum({"pools": plan}))
    assert codes(store) == {1}
    with StoreWriter(store).writing(MANIFEST) as writer:
        writer.plan([small_head(number) for number in range(2)])
    assert codes(store) == {0}


LARGE = 260 * 2**20  # bytes, more than a small file may unpack to


def repeated(name: str, text: str) -> Callable[[pa.Table], pa.Table]:
    """The same long text in every row, kept once."""

    def change(table: pa.Table) -> pa.Table:
        column = pa.DictionaryArray.from_arrays(pa.array([0] * table.num_rows, pa.int32()), [text])
        return table.set_column(table.column_names.index(name), name, column)

    return change


def longest_text(table: pa.Table) -> pa.Table:
    return replaced("text", ["a" * LARGE, *["a"] * (table.num_rows - 1)])(table)


PLAIN: dict[str, Any] = {"use_dictionary": False}
BOMBS: dict[str, tuple[Callable[[pa.Table], pa.Table], dict[str, Any]]] = {
    "one long text": (longest_text, PLAIN),
    "a text in every row": (repeated("text", "a" * (LARGE // 6)), {}),
    "a prompt": (repeated("prompt", "a" * LARGE), {}),
    "tokens": (replaced("tokens", [[7] * 2**20]), {}),
    "iterations": (replaced("token_iterations", [[0] * 2**20]), PLAIN),
    "prefixes": (replaced("text", ["a" * 2**20]), {**PLAIN, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}),
}


SLOW = {"a prompt": pytest.mark.slow, "one long text": pytest.mark.slow}  # of seconds, to make them


def bomb(name: str, folder: Path) -> Path:
    """A file of less than a megabyte that would need hundreds."""
    store = write_small(folder / "store", ANSWERS[:1])
    change, options = BOMBS[name]
    path = rewritten(
        next((store / "pools").iterdir()), change, compression="zstd", store_schema=False, **options
    )
    assert path.stat().st_size < 2**20
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read under /proc")
@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in BOMBS])
def test_a_bomb_is_refused_before_it_is_unpacked(name: str, tmp_path: Path) -> None:
    program = (
        "import re, sys; from pathlib import Path\n"
        "from lm_eval_eglr.store import StoreError\n"
        "from lm_eval_eglr.store.pool_file import decode, decode_cost\n"
        "for read in (decode, decode_cost):\n"
        "    try: read(Path(sys.argv[1]))\n"
        "    except StoreError as error: print(error)\n"
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', Path('/proc/self/status').read_text())[1])"
    )
    command = [sys.executable, "-c", program, str(bomb(name, tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *refusals, used = done.stdout.splitlines()
    assert len(refusals) == (1 if name == "a text in every row" else 2)  # the sum of costs reads no texts
    for said in refusals:
        assert "not a pool of a rollout store" in said
        assert "unpacks to" in said or "texts have" in said or "encoding" in said
    assert int(used) < 300_000


def test_a_footer_that_lies_about_its_pages_is_not_believed(tmp_path: Path) -> None:
    """The sizes are read from the headers of the pages, by which Arrow allocates."""
    path = bomb("one long text", tmp_path)
    data = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(0).column(8)
    assert column.path_in_schema == "text"
    stated = _varint(2 * column.total_uncompressed_size)
    small = bytes(byte | 0x80 for byte in _varint(2 * 5000)) + b"\x80" * (len(stated) - 3) + b"\x00"
    at = data.rindex(stated)  # in the footer; some releases of Arrow state it in the page, too
    lying = data[:at] + small + data[at + len(stated) :]
    assert pq.ParquetFile(io.BytesIO(lying)).metadata.row_group(0).column(8).total_uncompressed_size == 5000
    renamed = path.with_name(".".join([*path.name.split(".")[:4], digest(lying), "parquet"]))
    renamed.write_bytes(lying)
    with pytest.raises(StoreError, match=r"unpacks to 27\d{7} bytes"):
        decode(renamed)


def _varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


@pytest.mark.skipif(os.name == "nt", reason="pipes in folders")
def test_a_pipe_or_device_is_not_read(store: Path) -> None:
    os.mkfifo(store / "pools" / f"toy.000009.0.{'0' * 16}.{'0' * 16}.parquet")
    assert codes(store) == {1}
    (store / "manifest.json").unlink()
    os.mkfifo(store / "manifest.json")
    assert codes(store) == {1}
    (store / "manifest.json").unlink()
    (store / "manifest.json").symlink_to("/dev/zero")
    assert codes(store) == {1}


def test_a_large_manifest_is_not_read(store: Path) -> None:
    with (store / "manifest.json").open("r+b") as file:
        file.truncate(2**31)  # a hole: no space on the disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert codes(store) == {1}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 500_000


@pytest.mark.parametrize(
    "change",
    [
        {"text": ["a"]}, {"text": None}, {"text": "\ud800"}, {"prompt": "\ud800"}, {"task": 3},
        {"doc_id": "0"}, {"doc_id": 2**70}, {"cost": [1]}, {"cost": {"new": 1}},
        {"cell": {"span": "x"}}, {"cell": [1]}, {"tokens": ["a"]}, {"tokens": [2**40]},
        {"telemetry": [1]}, {"telemetry": {"new": 1}},
        {"settings": {}}, {"settings": "[" * 100_000}, {"rules": "3"}, {"place": "x"},
        {"place": None}, {"reference": "\udfff"},
    ],
    ids=lambda change: f"{change!r:.40}".encode("ascii", "backslashreplace").decode(),
)  # fmt: skip
def test_a_line_of_other_types_is_refused_in_one_line(
    change: dict[str, Any], sound: Path, tmp_path: Path
) -> None:
    lines = list(to_records(read_store(sound).pools))
    lines[1] = {**lines[1], **change}
    if "doc_id" in change or "task" in change:
        lines[0] = {**lines[0], **change}
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines[:6])))
    with pytest.raises(StoreError) as caught:
        import_lines(tmp_path / "rows.jsonl", tmp_path / "again")
    assert "\n" not in str(caught.value)


def test_a_lone_surrogate_is_refused_before_anything_is_decoded() -> None:
    for change in ({"reference": "\ud800"}, {"task": "a\udfff"}):
        with pytest.raises(ValueError, match=r"has a lone surrogate \(\\ud[8f]"):
            small_head(0, **change)


@pytest.mark.parametrize("command", ["select", "compare", "report", "export"])
def test_a_lone_surrogate_in_a_problems_fields_is_shown_as_an_escape(command: str, tmp_path: Path) -> None:
    fields = {"problem": "a\ud800b", "subject": "\udfff", "level": 1}
    write_small(tmp_path / "store", ANSWERS[:2], fields=fields)
    output = {"report": ["-o", tmp_path / "page.html"], "export": ["--format", "jsonl"]}.get(command, [])
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from lm_eval_eglr.cli.app import main; main()",
            command,
            tmp_path / "store",
            *output,
        ],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
