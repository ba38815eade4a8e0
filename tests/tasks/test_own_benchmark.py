"""A user's own benchmark: a JSONL and eight lines of YAML, our filter in other tasks, selectors in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lm_eval_command import Command

PROBLEMS = [
    {
        "id": "bikes",
        "problem": "A shop has 15 bicycles. It sells 4 of them. How many are left?",
        "answer": "11",
    },
    {"id": "apples", "problem": "Tom has 3 apples and buys 4 more. How many apples has he?", "answer": 7},
    {"id": "birds", "problem": "A farm has 12 hens and 8 ducks. How many birds has it?", "answer": "20.0"},
]
EIGHT_LINES = """\
task: puzzles
include: _prompts/zero_shot_yaml
dataset_kwargs:
  file: puzzles.jsonl
metadata:
  version: 1.0
  rules: number
  fallbacks: [phrase, last_number]
"""
OWN_TASK = """\
task: plain_puzzles
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{problem}}}} Put your final answer within \\\\boxed{{}}."
doc_to_target: "{{{{gold}}}}"
generation_kwargs: {{until: [], max_gen_toks: 160, do_sample: false, temperature: 0.0}}
filter_list:
{filters}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
RUN = "--model hf-eglr --device cpu --apply_chat_template --batch_size 64"
SMALL = "--model_args pretrained=demo,spans=0,temperatures=0:1x3 --gen_kwargs max_gen_toks=60"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    made.mkdir()
    write(made)
    (made / "puzzles.yaml").write_text(EIGHT_LINES)
    return made


def write(folder: Path, *, before: bytes = b"", break_line: int | None = None) -> None:
    lines = [json.dumps(row).encode() for row in PROBLEMS]
    if break_line is not None:
        lines[break_line] = lines[break_line].replace(b"apples", "pommes sucrées".encode("latin-1"), 1)
    (folder / "puzzles.jsonl").write_bytes(before + b"\n".join(lines) + b"\n")


def samples(root: Path, task: str) -> list[dict[str, Any]]:
    (file,) = root.rglob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("given", ["--tasks mine/puzzles.yaml", "--tasks puzzles --include_path mine"])
def test_eight_lines_are_a_benchmark_that_finds_its_data_beside_them(
    given: str, folder: Path, command: Command, tmp_path: Path
) -> None:
    done = command(
        f"{RUN} {SMALL} {given} --metadata selectors=greedy,majority --log_samples --output_path out"
    )
    assert done.code == 0, done.err
    assert [row for row, metric in done.rows if metric == "exact_match"] == ["greedy", "majority"]
    found = samples(tmp_path / "out", "puzzles")
    assert {sample["doc"]["id"] for sample in found} == {"bikes", "apples", "birds"}
    assert all(len(sample["resps"][0]) == 4 for sample in found), "each of its rollouts is in the record"


def test_a_byte_order_mark_is_passed_over_and_another_encoding_is_named(
    folder: Path, command: Command
) -> None:
    write(folder, before=b"\xef\xbb\xbf", break_line=1)
    done = command(f"{RUN} {SMALL} --tasks mine/puzzles.yaml")
    assert done.error == f"{folder / 'puzzles.jsonl'}, line 2: byte 0xe9 is not UTF-8; save the file as UTF-8"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rules: number", "rules: nummer"), "rules 'nummer': expected one of"),
        (("[phrase, last_number]", "[phrases]"), "'phrases'"),
        (("file: puzzles.jsonl", "file: puzles.jsonl"), "no file 'puzles.jsonl' in "),
        (
            ("file: puzzles.jsonl", "path: puzzles.jsonl"),
            "dataset_kwargs path='puzzles.jsonl': expected some of",
        ),
        (("file: puzzles.jsonl", "file: puzzles.jsonl\n  rows: 4"), "puzzles.jsonl: 3 problems, expected 4"),
    ],
)
def test_a_fault_of_the_yaml_is_one_line(
    change: tuple[str, str], message: str, folder: Path, command: Command
) -> None:
    (folder / "puzzles.yaml").write_text(EIGHT_LINES.replace(*change))
    done = command(f"{RUN} --model_args pretrained=no/such-model --tasks mine/puzzles.yaml")
    assert message in done.error


def own_task(folder: Path, *filters: str, rows: Any = PROBLEMS) -> None:
    data = folder / "plain.jsonl"
    data.write_text(
        "".join(json.dumps({"problem": r["problem"], "gold": str(r["answer"])}) + "\n" for r in rows)
    )
    listed = "\n".join(f"  - {each}" for each in filters)
    (folder / "plain.yaml").write_text(OWN_TASK.format(file=data, filters=listed))


def test_the_filter_in_a_task_of_ones_own_selects_from_a_pool(
    folder: Path, command: Command, tmp_path: Path
) -> None:
    own_task(
        folder,
        "{name: maj, filter: [{function: eglr_select, selector: majority, rules: number}]}",
        "{name: orc, filter: "
        "[{function: eglr_select, selector: oracle, rules: number}, {function: take_first}]}",
        "{name: scored, filter: [{function: eglr_select, selector: weighted_vote, rules: number}]}",
        "{name: whole, filter: [{function: eglr_select, selector: greedy, returns: text}]}",
    )
    arguments = f"{RUN} --model_args pretrained=demo,spans=0,temperatures=0:1x3 --tasks mine/plain.yaml"
    done = command(f"{arguments} --log_samples --output_path out")
    assert done.code == 0, done.err
    assert [row for row, _ in done.rows] == ["maj", "scored", "whole", "orc (uses reference)"]
    assert "selector weighted_vote is undefined on 3 of 3 documents" in done.err
    (scored,) = [line for line in done.out.splitlines() if "|scored" in line]
    assert scored.count("NaN") == 2
    found = samples(tmp_path / "out", "plain_puzzles")
    assert all(len(sample["resps"][0]) == 4 for sample in found)

    from eglr_selectors import RolloutPool, Rules, extract, grade, select

    for sample in found:
        texts, (filtered,) = sample["resps"][0], sample["filtered_resps"]
        rules, places = Rules.named("number"), ("hash", "phrase", "last_number")
        if sample["filter"] == "maj":
            chosen = select(RolloutPool.from_texts(texts), "majority", rules=rules, fallbacks=places)
            assert chosen.index is not None
            read = extract(texts[chosen.index], fallbacks=places)
            right = bool(grade(sample["target"], read, rules).correct)
            assert sample["exact_match"] == float(right)
            assert filtered == (sample["target"] if right else chosen.answer)
        elif sample["filter"] == "whole":
            assert filtered == texts[0]
        elif sample["filter"] == "orc (uses reference)":
            graded = [
                grade(sample["target"], extract(text, fallbacks=places), rules).correct for text in texts
            ]
            assert sample["exact_match"] == float(any(graded))


def test_equal_answers_of_other_spelling_are_counted_by_exact_match(folder: Path, command: Command) -> None:
    """The model says 7 and 20; the targets say 7.00 and 20.0."""
    own_task(
        folder,
        "{name: orc, filter: [{function: eglr_select, selector: oracle, rules: number}]}",
        rows=[{**PROBLEMS[1], "answer": "7.00"}],
    )
    done = command(f"{RUN} --model_args pretrained=demo,spans=0,temperatures=0 --tasks mine/plain.yaml")
    assert done.code == 0, done.err
    (row,) = [line for line in done.out.splitlines() if "orc (uses reference)" in line]
    assert float(row.split("|")[7]) == 1


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("selector: majorty", "filter maj: selector 'majorty': expected one of"),
        ("selektor: majority", "filter maj: selektor='majority': eglr_select takes selector, "),
        ("rules: maths", "filter maj: rules 'maths'"),
        ("fallbacks: [hashes]", "filter maj: fallbacks: 'hashes'"),
        ("returns: texts", "filter maj: returns='texts': expected one of answer, text"),
    ],
)
def test_a_fault_of_the_filter_is_found_before_the_model_is_looked_for(
    step: str, message: str, folder: Path, command: Command
) -> None:
    own_task(folder, f"{{name: maj, filter: [{{function: eglr_select, {step}}}]}}")
    done = command(f"{RUN} --model_args pretrained=no/such-model --tasks mine/plain.yaml")
    assert message in done.error


def test_the_filter_must_come_first(folder: Path, command: Command) -> None:
    own_task(folder, "{name: maj, filter: [{function: lowercase}, {function: eglr_select}]}")
    done = command(f"{RUN} --model_args pretrained=no/such-model --tasks mine/plain.yaml")
    assert "filter maj: eglr_select must be the first step" in done.error


def test_pools_of_such_a_task_are_not_cached_either(folder: Path, command: Command) -> None:
    own_task(folder, "{name: maj, filter: [{function: eglr_select}]}")
    done = command(f"{RUN} --model_args pretrained=no/such-model --tasks mine/plain.yaml --use_cache c")
    assert done.error.startswith("use_cache='c': ")


SELECTOR = '''
from eglr_selectors import register_selector

@register_selector("shortest_of_file")
def shortest_of_file():
    """The shortest rollout."""
    return lambda pool: min(range(len(pool)), key=lambda i: len(pool[i].text))
'''


def test_a_selector_from_a_file_gets_a_row(
    folder: Path,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own_registrations: None,
    fresh_plugins: None,
) -> None:
    (tmp_path / "my.py").write_text(SELECTOR)
    monkeypatch.setenv("EGLR_PLUGINS", "my.py")
    chosen = "--metadata selectors=shortest_of_file,majority"
    done = command(f"{RUN} {SMALL} --tasks mine/puzzles.yaml {chosen} --log_samples --output_path out")
    assert done.code == 0, done.err
    assert [row for row, metric in done.rows if metric == "exact_match"] == ["majority", "shortest_of_file"]
    for sample in samples(tmp_path / "out", "puzzles"):
        if sample["filter"] == "shortest_of_file":
            assert sample["filtered_resps"] == [min(sample["resps"][0], key=len)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "EGLR_PLUGINS=my.py: expected a Python file"),
        ("import nothing_of_this_name", "EGLR_PLUGINS=my.py: ModuleNotFoundError: No module named"),
        ("x = (", "EGLR_PLUGINS=my.py: SyntaxError: "),
    ],
)
def test_a_file_that_cannot_be_run_is_named(
    text: str | None,
    message: str,
    folder: Path,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fresh_plugins: None,
) -> None:
    if text is not None:
        (tmp_path / "my.py").write_text(text)
    monkeypatch.setenv("EGLR_PLUGINS", "my.py")
    done = command(f"{RUN} --model_args pretrained=no/such-model --tasks mine/puzzles.yaml")
    assert done.error.startswith(message)


@pytest.fixture
def fresh_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not looked for plug-ins yet."""
    from eglr_selectors import registry

    monkeypatch.setattr(registry._REGISTRY, "_plugins_loaded", False)
