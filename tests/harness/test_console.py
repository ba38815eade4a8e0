"""What a run prints: log lines, errors, an interruption, the bar, the order of the rows."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from eglr_selectors import Rollout, RolloutPool, available_selectors, register_selector
from eglr_selectors.metrics import POOL_METRICS
from eglr_selectors.pool import Cell
from lm_eval.utils import make_table
from lm_eval_command import DEMO, Command
from stock_tasks import without_stock_tasks

from lm_eval_eglr.harness.row_order import ordered_rows
from lm_eval_eglr.progress import DecodingBar, decoding_bar

LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d:\d\d:\d\d:\d\d (INFO|WARNING) +\[[\w.]+:\d+\] ")
FAST = "--model_args pretrained=demo,spans=0,temperatures=0 --gen_kwargs max_gen_toks=4"


def test_our_log_lines_look_like_those_of_lm_eval(command: Command) -> None:
    done = command(f"{DEMO.replace('--apply_chat_template', '')} {FAST}")
    ours = [line for line in done.err.splitlines() if "chat template and it is not applied" in line]
    assert len(ours) == 1
    assert LOG_LINE.match(ours[0])
    assert "[lm_eval_eglr.harness.run_checks:" in ours[0]
    assert [logging.getLogger(name).handlers for name in ("lm_eval_eglr", "eglr_selectors")] == [[], []]


def test_a_fault_of_the_user_is_one_line_and_a_traceback_on_demand(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = f"{DEMO} --model_args pretrained=demo,spans=0:99"
    assert command(arguments).error == "spans: '99' is deeper than the model, which has 8 layers"
    monkeypatch.setenv("LM_EVAL_EGLR_DEBUG", "1")
    with pytest.raises(ValueError, match="deeper than the model"):
        command(arguments)


def test_a_task_that_is_not_there_is_one_line_with_our_model_only(command: Command) -> None:
    assert command("--model hf-eglr --tasks nothing").error == "Tasks not found: nothing"
    with pytest.raises(ValueError, match="Tasks not found"):
        command("--model hf --tasks nothing")
    Path("run.yaml").write_text("model: hf-eglr\ntasks: [nothing]\n")
    assert command("--config run.yaml --limit 1").error == "Tasks not found: nothing"


def test_a_model_that_cannot_be_loaded_is_named(command: Command, tmp_path: Path) -> None:
    assert command(f"{DEMO} --model_args pretrained={tmp_path}").error.startswith(
        f"pretrained='{tmp_path}' cannot be loaded: "
    )


def test_a_refusal_of_the_store_is_one_line(command: Command) -> None:
    arguments = f"{DEMO} {FAST} --model_args rollouts=runs/a --metadata selectors=greedy"
    assert command(arguments).code == 0
    refused = command(f"{arguments} --seed 3")
    assert refused.code == 1
    assert "runs/a" in refused.error
    assert "seed" in refused.error


def test_a_fault_of_ours_keeps_its_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, request: object) -> None:
        raise AssertionError("not a user's fault")

    monkeypatch.setattr("lm_eval_eglr.harness.planning.Planner.plan", broken)
    with pytest.raises(AssertionError, match="not a user's fault"):
        command(f"{DEMO} {FAST}")


def test_git_is_not_heard_where_there_is_no_repository(command: Command) -> None:
    done = command(f"{DEMO} {FAST} --metadata selectors=greedy")
    assert done.code == 0
    assert "not a git repository" not in done.err


def test_rows_come_as_they_are_read(command: Command) -> None:
    done = command(f"{DEMO} {FAST}")
    rows = [row for row, metric in done.rows if metric == "exact_match"]
    info = available_selectors()
    oracles = [row for row in rows if row.endswith(" (uses reference)")]
    assert rows[:2] == ["greedy", "majority"]
    others = rows[2 : len(rows) - len(oracles)]
    assert others == sorted(others)
    assert rows[len(rows) - len(oracles) :] == oracles == sorted(oracles)
    assert len(oracles) == sum(each.uses_reference for each in info.values())
    assert "weighted_vote" not in rows  # it needs scores, which plain rollouts have not
    assert "selector weighted_vote is undefined on 2 of 2 documents (no rollout " in done.err
    metrics = [metric for row, metric in done.rows if row == "pool"]
    assert metrics == list(POOL_METRICS)
    assert [metric for _, metric in done.rows][-len(metrics) :] == metrics
    assert "nan" not in done.out.lower()


def test_an_undefined_selector_that_was_asked_for_is_warned_of(command: Command) -> None:
    done = command(f"{DEMO} {FAST} --metadata selectors=weighted_vote,greedy")
    (line,) = [line for line in done.err.splitlines() if "weighted_vote is undefined" in line]
    assert " WARNING " in line
    assert [row for row, metric in done.rows if metric == "exact_match"] == ["greedy", "weighted_vote"]
    assert done.out.count("NaN") == 2


def test_tables_of_others_are_left_alone() -> None:
    metrics = {"exact_match,strict": 0.1, "exact_match,flexible": float("nan"), "alias": "x"}
    assert list(ordered_rows(metrics)) == list(metrics)
    table = {"results": {"x": metrics}, "versions": {}, "configs": {"x": {}}}
    assert [line.split("|")[3].strip() for line in make_table(table).splitlines()[2:] if line] == [
        "flexible",
        "strict",
    ]


def test_a_selector_that_raises_costs_its_own_row(command: Command, own_registrations: None) -> None:
    @register_selector("fails_on_one")
    def fails_on_one():  # type: ignore[no-untyped-def]
        """Raises on the first problem that it sees."""
        seen: list[str] = []

        def choice(parsed):  # type: ignore[no-untyped-def]
            seen.append(parsed.problem)
            if len(seen) == 2:
                raise ZeroDivisionError("no weight")
            return 0

        return choice

    @register_selector("cannot_be_made")
    def cannot_be_made():  # type: ignore[no-untyped-def]
        """Raises at once."""
        raise KeyError("gone")

    done = command(f"{DEMO} {FAST}")
    rows = [row for row, metric in done.rows if metric == "exact_match"]
    assert {"greedy", "majority", "oracle (uses reference)"} <= set(rows)
    assert not {"fails_on_one", "cannot_be_made"} & set(rows)
    (line,) = [line for line in done.err.splitlines() if "selector fails_on_one" in line]
    assert " WARNING " in line
    assert "is undefined on 1 of 2 documents (raised ZeroDivisionError on document " in line
    assert line.endswith(": no weight)")
    assert "cannot_be_made has no row: selector cannot_be_made: KeyError: 'gone'" in done.err
    asked = command(f"{DEMO} {FAST} --metadata selectors=fails_on_one,greedy")
    assert [row for row, metric in asked.rows if metric == "exact_match"] == ["greedy", "fails_on_one"]
    refused = command(f"{DEMO} {FAST} --metadata selectors=cannot_be_made")
    assert refused.error == "selector cannot_be_made: KeyError: 'gone'"


def test_the_bar_is_silent_where_there_is_no_terminal(command: Command) -> None:
    assert "Decoding pools" not in command(f"{DEMO} {FAST}").err


def test_the_bar_counts_tokens_from_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    texts = [Rollout("x", Cell(0, 0.0, sample), tokens=(1,) * 20) for sample in range(2)]
    with decoding_bar(show=True, rollouts=4, limit=100) as bar:
        assert bar.expected_tokens() == 4 * 50
        bar.advance(4, 0)
        assert bar._bar.n == 4
        list(bar.watch([(0, RolloutPool(tuple(texts)))]))
        assert bar.expected_tokens() == 2 * 20 + 2 * 30  # one guess of 50 beside two of 20
        bar.advance(200, 4)
        assert bar.expected_tokens() == bar._bar.total == 204


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_an_interruption_says_how_to_go_on(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "lm_eval", *DEMO.replace("--limit 2", "--limit 200").split()),
            *("--model_args", "pretrained=demo,rollouts=runs/a", "--batch_size", "8"),
        ],
        cwd=tmp_path,
        env={**os.environ, **without_stock_tasks(), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A runner in the background may have been started with interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert run.stderr is not None
    said = ""
    for line in run.stderr:
        said += line
        if "Running generate_until requests" in line:
            time.sleep(1)
            run.send_signal(signal.SIGINT)
    assert run.wait(120) == 130, said
    assert "Traceback" not in said
    assert "the same command continues with the missing ones" in said.rstrip().splitlines()[-1]


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_an_interruption_without_a_store_says_what_keeps_pools(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(bar: DecodingBar, new_tokens: int, finished: int) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(DecodingBar, "advance", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = command(f"{DEMO} {FAST}")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == 130
    assert "Traceback" not in done.err
    last = done.err.rstrip().splitlines()[-1]
    assert last == "interrupted: nothing was kept; rollouts=DIR in --model_args keeps what is finished"
