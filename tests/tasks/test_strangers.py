"""Task files of strangers: what runs, when; a task is a program to lm_eval, a data file is only text."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lm_eval_eglr.paths import tasks_folder

Ran = Callable[[], bool]


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    """Whether the stranger's code has run; it is written into ``strange`` beside tasks that name it."""
    folder, mark = tmp_path / "strange", tmp_path / "ran"
    folder.mkdir()
    (folder / "code.py").write_text(f"open({str(mark)!r}, 'w').close()\ntext = str\n")
    (folder / "named.yaml").write_text("task: named\ndoc_to_text: !function code.text\n")
    (folder / "object.yaml").write_text(f"task: !!python/object/apply:builtins.open [{mark}, w]\n")
    return mark.exists


def manager(folder: Path) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=[str(tasks_folder()), str(folder)], include_defaults=False)


def test_nothing_runs_until_a_task_of_theirs_is_asked_for(ran: Ran, tmp_path: Path) -> None:
    tasks = manager(tmp_path / "strange")
    assert tasks.load(["demo_eglr"])["tasks"].keys() == {"demo_eglr"}
    assert "named" in tasks.all_tasks
    assert not ran()
    with contextlib.suppress(Exception):  # it has no data
        tasks.load(["named"])
    assert ran(), "a function that a task names is imported: such a file is a program"


def test_an_object_is_refused_even_when_asked_for(ran: Ran, tmp_path: Path) -> None:
    tasks = manager(tmp_path / "strange")
    assert "object" not in tasks.all_tasks
    with pytest.raises(yaml.YAMLError, match=r"python/object/apply:builtins\.open"):
        tasks.load([str(tmp_path / "strange" / "object.yaml")])
    assert not ran()


def test_a_problem_is_text_and_no_template(tmp_path: Path) -> None:
    problem = "{{ 6 * 7 }} {% for x in y %} {{ cycler.__init__.__globals__ }}"
    row = {"id": "1", "problem": problem, "answer": "{{ 6 * 7 }}"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "rows_eglr.yaml").write_text(
        "task: rows_eglr\nclass: !function lm_eval_eglr.harness.task.EGLRTask\n"
        "dataset_kwargs: {file: rows.jsonl, rows: 1}\ntest_split: test\noutput_type: generate_until\n"
        'doc_to_text: "{{problem}} Answer:"\ndoc_to_target: answer\n'
        "generation_kwargs: {until: [], do_sample: false, max_gen_toks: 4}\n"
        "metadata: {version: 1.0, rules: number}\n"
    )
    task = manager(tmp_path).load(["rows_eglr"])["tasks"]["rows_eglr"]
    [document] = task.eval_docs
    assert task.doc_to_text(document) == f"{problem} Answer:"
    assert task.doc_to_target(document) == "{{ 6 * 7 }}"
