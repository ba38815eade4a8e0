"""Problems come from a folder or from the hub, alike; what is wrong with them is said in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval.tasks import TaskManager
from our_tasks import task_manager

from lm_eval_eglr.problems.dataset import FOLDER_VARIABLE, load_problems
from lm_eval_eglr.problems.repairs import Repair, repair_rows
from lm_eval_eglr.problems.source import Source

PLAIN = Source("set.jsonl", 2, hub="owner/set")
ROWS = [{"id": "a", "problem": "1 + 1?", "answer": "2"}, {"id": 7, "problem": "2 + 2?", "answer": 4}]


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)


def write(folder: Path, rows: list[Any], name: str = "set.jsonl") -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


def test_a_folder_is_named_by_argument_or_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_argument = load_problems(PLAIN, tmp_path, write(tmp_path, ROWS))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    by_variable = load_problems(PLAIN, tmp_path)
    assert list(by_argument) == list(by_variable)
    assert by_argument[1] == {"id": "7", "problem": "2 + 2?", "answer": "4"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], "{"], "set.jsonl, line 2: not JSON"),
        ([ROWS[0], "[1]"], "set.jsonl, line 2: not a JSON object"),
        (
            [ROWS[0], {"id": 1, "problem": "?"}],
            "set.jsonl, line 2: no 'answer'; expected at least id, problem, answer",
        ),
        ([ROWS[0], {"id": 1, "problem": ["?"], "answer": "1"}], "'problem' is a list, expected str"),
        ([ROWS[0], {"id": 1, "problem": "?", "answer": ["1"]}], "'answer' is a list, expected str"),
        ([ROWS[0], {"id": 1, "problem": " ", "answer": "1"}], "'problem' is empty"),
        ([ROWS[0], {**ROWS[1], "level": "hard"}], "'level' is a str, expected int"),
        ([ROWS[0]], "set.jsonl: 1 problems, expected 2"),
        ([*ROWS, {**ROWS[0], "id": "c"}], "set.jsonl: 3 problems, expected 2"),
        ([ROWS[0], ROWS[0]], "1 ids appear more than once"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_problems(PLAIN, tmp_path, write(tmp_path, rows))
    assert "\n" not in str(error.value)


def test_a_missing_file_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"data_dir=.*: it has no file set.jsonl"):
        load_problems(PLAIN, tmp_path, str(tmp_path))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"EGLR_DATA_DIR=.*: it has no file set.jsonl"):
        load_problems(PLAIN, tmp_path)


def test_an_unreachable_hub_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    message = "owner/set cannot be loaded (no route); without the hub, set EGLR_DATA_DIR to a folder"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_problems(PLAIN, tmp_path)


def test_a_hub_set_of_other_columns_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: [{"question": "?", "answer": "1"}])
    with pytest.raises(ValueError, match="owner/set, row 0: no column 'problem'; it has question, answer"):
        load_problems(PLAIN, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"file": "f", "rows": 1, "hubb": "x"}, "dataset_kwargs hubb='x': expected some of file, rows, hub"),
        ({"rows": 1}, "dataset_kwargs: no file"),
        ({"file": "f", "rows": 0}, "rows=0: expected an integer >= 1"),
        ({"file": "f", "rows": 1, "columns": {"question": "q"}}, "columns: 'question': expected some of id"),
        ({"file": "f", "rows": 1, "hub": "a/b", "revision": "main"}, "revision='main': expected a commit of"),
        ({"file": "f", "rows": 1, "revision": "0" * 40}, "revision='0*': there is no hub data set"),
        ({"file": "f", "rows": 1, "reading": ["box"]}, "reading: 'box': expected some of boxed"),
    ],
)
def test_a_bad_source_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Source.from_options(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reason": ""}, "no reason"),
        ({"reason": "r"}, "expected one of drop, column, fault, tolerance"),
        ({"reason": "r", "drop": True, "fault": "gold"}, "expected one of drop, column, fault, tolerance"),
        ({"reason": "r", "column": "answer"}, "column and find go together"),
        ({"reason": "r", "tolerance": -1.0}, "tolerance=-1.0: expected a number >= 0"),
        ({"reason": "r", "fault": "odd"}, "fault='odd': expected one of unsolvable, gold"),
    ],
)
def test_a_bad_repair_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Repair("1", **options)


def test_a_shipped_file_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file 'none/set.jsonl' in .* or among the tasks"):
        load_problems(Source("none/set.jsonl", 1), tmp_path)


def test_repairs_leave_a_repaired_release_alone() -> None:
    rows = [{"id": "1", "problem": "Let $T=5$.", "answer": "5"}]
    repairs = [Repair("1", "r", column="problem", find="$T=?$", put="$T=5$"), Repair("2", "gone", drop=True)]
    assert repair_rows(rows, repairs) == rows


# Commits whose content was compared with other copies of the set; the other sets follow the hub.
REVISIONS = {
    "math500": "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
    "aime25": "563bb8404243c5f09de6ec262f2db674fe5bce9b",
}

# One or two rows as the hub has them, made up, and what our columns become.
HUB_ROWS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "math500": (
        [
            {
                "problem": " What is $\\frac12$? ",
                "solution": "It is \\boxed{\\frac{1}{2}}.",
                "answer": "\\frac{1}{2}",
                "subject": "Algebra",
                "level": 3,
                "unique_id": "test/algebra/1.json",
            }
        ],
        [
            {
                "id": "test/algebra/1.json",
                "problem": "What is $\\frac12$?",
                "answer": "\\frac{1}{2}",
                "solution": "It is \\boxed{\\frac{1}{2}}.",
                "subject": "Algebra",
                "level": 3,
            }
        ],
    ),
    "gsm8k": (
        [{"question": "How many?", "answer": "500 + 734 = <<500+734=1234>>1234\n#### 1,234"}],
        [
            {
                "id": "0",
                "problem": "How many?",
                "answer": "1234",
                "solution": "500 + 734 = <<500+734=1234>>1234\n#### 1,234",
            }
        ],
    ),
    "aime24": (
        [{"id": 60, "problem": "Find $m+n$.", "solution": "\\boxed{073}", "url": "https://example.org"}],
        [{"id": "60", "problem": "Find $m+n$.", "answer": "73"}],
    ),
    "aime25": (
        [{"id": "0", "problem": "Find it.", "answer": "70"}],
        [{"id": "0", "problem": "Find it.", "answer": "70"}],
    ),
    "amc23": (
        [{"id": 0, "answer": 27.0, "url": "https://example.org", "question": "How far?"}],
        [{"id": "0", "problem": "How far?", "answer": "27"}],
    ),
    "minerva_math": (
        [{"question": "How bright?", "answer": "4.5e33"}],
        [{"id": "0", "problem": "How bright?", "answer": "4.5e33", "fault": ""}],
    ),
    "olympiadbench": (
        [
            {
                "id": 1664,
                "subfield": "Algebra",
                "context": None,
                "question": "Which values?",
                "solution": ["..."],
                "final_answer": ["$69$,$84$"],
                "is_multiple_answer": True,
                "unit": None,
                "answer_type": "Numerical",
                "error": None,
                "subject": "Math",
            },
            {
                "id": 2721,
                "subfield": "Algebra",
                "question": "Let $T=T N Y W R$. Compute $T$.",
                "final_answer": ["15"],
            },
            {
                "id": 2655,
                "subfield": "Algebra",
                "question": "The number from position 7?",
                "final_answer": ["$221,$8$"],
            },
            {
                "id": 1965,
                "subfield": "Algebra",
                "question": "Which?",
                "final_answer": ["$f(x)=a x$, where $a$ is"],
            },
        ],
        [
            {
                "id": "1664",
                "problem": "Which values?",
                "answer": "69, 84",
                "subject": "Algebra",
                "fault": "",
                "tolerance": 0.0,
            },
            {
                "id": "2721",
                "problem": "Let $T=0$. Compute $T$.",
                "answer": "15",
                "subject": "Algebra",
                "fault": "",
                "tolerance": 0.0,
            },
            {
                "id": "2655",
                "problem": "The number from position 7?",
                "answer": "221, 8",
                "subject": "Algebra",
                "fault": "unsolvable",
                "tolerance": 0.0,
            },
        ],
    ),
    "svamp": (
        [
            {
                "ID": "chal-967",
                "Body": "There are 3 red balls and 5 blue ones",
                "Question": "How many balls are there?",
                "Equation": "( 3.0 + 5.0 )",
                "Answer": "8.0",
                "Type": "Common-Divison",
            }
        ],
        [
            {
                "id": "chal-967",
                "problem": "There are 3 red balls and 5 blue ones. How many balls are there?",
                "answer": "8",
                "subject": "Common-Division",
            }
        ],
    ),
}
HUB_SETS = {
    "math500": ("HuggingFaceH4/MATH-500", None, "test"),
    "gsm8k": ("openai/gsm8k", "main", "test"),
    "aime24": ("math-ai/aime24", None, "test"),
    "aime25": ("math-ai/aime25", None, "test"),
    "amc23": ("math-ai/amc23", None, "test"),
    "minerva_math": ("math-ai/minervamath", None, "test"),
    "olympiadbench": ("math-ai/olympiadbench", None, "test"),
    "svamp": ("ChilleD/SVAMP", None, "train+test"),
}


@pytest.mark.parametrize("name", HUB_SETS)
def test_hub_rows_become_ours(
    name: str, task_options: Callable[[str], dict[str, Any]], tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = HUB_ROWS[name]
    asked: list[Any] = []

    def fake(
        path: str, config: str | None = None, *, split: str, revision: str | None
    ) -> list[dict[str, Any]]:
        asked.append((path, config, split))
        assert revision == REVISIONS.get(name)
        return theirs

    monkeypatch.setattr(datasets, "load_dataset", fake)
    source = Source.from_options({**task_options(name)["dataset_kwargs"], "rows": len(ours)})
    assert list(load_problems(source, tasks / name)) == ours
    assert asked == [HUB_SETS[name]]


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("gsm8k", {"question": "?", "answer": "4"}, "row 0: answer: no #### in the solution"),
        (
            "aime24",
            {"id": 1, "problem": "?", "solution": "none"},
            r"row 0: answer: no \boxed{} in the solution",
        ),
        ("amc23", {"id": 1, "question": "?", "answer": "x"}, "row 0: answer: 'x' is not an integer"),
        (
            "olympiadbench",
            {"id": 1, "question": "?", "final_answer": ["1", "2"], "subfield": "Algebra"},
            "row 0: answer: \"['1', '2']\" is not a list of one string",
        ),
    ],
)
def test_an_answer_that_cannot_be_read_is_named(
    name: str,
    row: dict[str, Any],
    message: str,
    task_options: Callable[[str], dict[str, Any]],
    tasks: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: [row])
    with pytest.raises(ValueError, match=re.escape(message)):
        load_problems(Source.from_options(task_options(name)["dataset_kwargs"]), tasks / name)


SIZES = {
    "math500": 500,
    "gsm8k": 1319,
    "aime24": 30,
    "aime25": 30,
    "amc23": 40,
    "minerva_math": 272,
    "olympiadbench": 674,
    "svamp": 1000,
}


@pytest.mark.parametrize("name", SIZES)
def test_benchmark_files_load(name: str, benchmarks: Path, load: Callable[..., Any]) -> None:
    task = load(f"{name}_eglr", data_dir=str(benchmarks))
    assert len(task.eval_docs) == SIZES[name]


def test_olympiadbench_states_every_relay_value(benchmarks: Path, load: Callable[..., Any]) -> None:
    docs = load("olympiadbench_eglr", data_dir=str(benchmarks)).eval_docs
    left = [doc["id"] for doc in docs if "T=T N Y W R" in doc["problem"]]
    assert left == ["2720"]  # its answer is 0 for any T
    assert [doc["id"] for doc in docs if doc["fault"] == "unsolvable"] == ["2655", "2967", "3095"]
    assert "1965" not in docs["id"]
    answers = dict(zip(docs["id"], docs["answer"], strict=True))
    assert answers["2817"] == "44"
    assert [(doc["id"], doc["tolerance"]) for doc in docs if doc["tolerance"]] == [("2592", 0.1)]


def test_a_task_elsewhere_can_include_ours(tasks: Path, tmp_path: Path) -> None:
    own = "Answer with a number in \\\\boxed{}."
    text = f"include: {tasks / 'demo' / 'demo_eglr.yaml'}\ntask: mine\ndoc_to_text: '{{{{problem}}}} {own}'\n"
    (tmp_path / "mine.yaml").write_text(text)
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    mine = manager.load(["mine"])["tasks"]["mine"]
    assert len(mine.eval_docs) == 500
    theirs = task_manager().load(["demo_eglr"])["tasks"]["demo_eglr"]
    assert mine.config.metadata["prompt_sha256"] != theirs.config.metadata["prompt_sha256"]
