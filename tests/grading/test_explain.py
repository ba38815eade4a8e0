"""A verdict says how both sides were read, which check decided, and why; `eglr grade` prints it."""

from __future__ import annotations

import json

import pytest
from eglr_selectors.grading import Rules, Verdict, explain, grade, grade_many
from eglr_selectors.grading.checks import CHECKS
from eglr_selectors.grading.comparison import COMPARISONS
from eglr_selectors.grading.parser import FORMS
from typer.testing import CliRunner

from lm_eval_eglr.cli.app import app


def test_an_explanation_names_readings_the_check_and_the_reason() -> None:
    text = str(grade("12", "12 million").explain())
    assert text.startswith("wrong: different numbers")
    assert "the number 12 " in text
    assert "the number 12000000" in text
    assert "number in words" in text
    assert text.endswith("comparison of what both say: wrong: different numbers")


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("1/2", "0.5"),
        ("x", ""),
        ("1", None),
        (r"\int_0^1 x dx", r"\frac12"),
        ("1", "\x00"),
        ("A", "(A) or (B)"),
    ],
)
def test_the_last_step_is_the_verdict(gold: str, answer: str | None) -> None:
    verdict = grade(gold, answer)
    explanation = verdict.explain()
    assert explanation.verdict == verdict
    if answer is not None:
        assert explanation.steps[-1][1] == f"{verdict.outcome}: {verdict.reason}"
        names = [check.name for check in CHECKS]
        made = [name for name, _ in explanation.steps if name in names]
        assert made == names[: len(made)], "the checks come in the order of the table"


def test_verdicts_of_a_call_know_their_pairs_and_are_equal_whatever_they_are_about() -> None:
    first, second = grade_many([("1", "2"), ("3", "4")])
    assert first == second
    assert "3" in str(second.explain())
    with pytest.raises(ValueError, match="knows no gold and answer"):
        Verdict("wrong", "number").explain()


def test_rules_that_are_not_the_default_are_named() -> None:
    assert "percent=strict" in str(explain("50", r"50\%", Rules(percent="strict")))


def test_the_tables_have_no_row_twice() -> None:
    assert len({name for name, _ in FORMS}) == len(FORMS)
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert len({(row.kind, row.other) for row in COMPARISONS}) == len(COMPARISONS)
    assert all((row.compare.__doc__ or "").strip() for row in COMPARISONS)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["113", "m+n=113"], 0, "states the number 113"),
        (["5", "6"], 1, "wrong: different numbers"),
        (
            ["--rules", "integer", "--output", "--fallbacks", "hash", "72", "#### 72 clips"],
            0,
            "found as hash: 72 clips",
        ),
        (["--output", "7", "no answer here"], 1, "no answer in the text"),
        (["--rules", "percent=strict", "50", "50%"], 1, "percent=strict"),
        (["--rules", "maths", "1", "1"], 2, "rules 'maths': expected one of math"),
        (["--rules", "percent=never", "1", "1"], 2, "percent='never': expected one of either, strict"),
        (["--rules", "math,colour=red", "1", "1"], 2, "rules: 'colour=red': expected one of form"),
        (["--fallbacks", "hash", "1", "1"], 2, "only with --output"),
    ],
)
def test_the_command(arguments: list[str], code: int, said: str) -> None:
    result = CliRunner().invoke(app, ["grade", *arguments])
    assert result.exit_code == code, result.output
    assert said in result.output


def test_the_command_prints_json() -> None:
    result = CliRunner().invoke(app, ["grade", "--json", "0.5", r"\frac12"])
    found = json.loads(result.stdout)
    assert found["outcome"] == "correct"
    assert found["path"] == "number"
    assert found["steps"][-1][0] == "comparison of what both say"
