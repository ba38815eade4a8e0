"""``eglr grade``: one verdict, and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from eglr_selectors import Rules, extract
from eglr_selectors.grading import explain

from lm_eval_eglr.cli.output import print_json
from lm_eval_eglr.reports.escaping import for_terminal

UNGRADED = 3


def grade(
    gold: Annotated[str, typer.Argument(metavar="GOLD", help="The reference answer.")],
    answer: Annotated[
        str, typer.Argument(metavar="ANSWER", help="The answer itself, or with --output a whole output.")
    ],
    rules: Annotated[
        str, typer.Option(help="math, olympiad, integer, number, quantity or text; fields as key=value,...")
    ] = "math",
    output: Annotated[
        bool, typer.Option("--output", help="Find the answer in the text first, as in a run.")
    ] = False,
    fallbacks: Annotated[
        str, typer.Option(help="With --output, where to look if there is no box: hash,phrase,last_number.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Grade one answer, and say how both sides were read, which check decided, and why.

    Exits with 0 if it is correct, 1 if it is wrong or there is none, 3 if it could not be graded.
    """
    if fallbacks and not output:
        raise ValueError(f"--fallbacks {fallbacks}: only with --output, which finds the answer in a text")
    names = [name.strip() for name in fallbacks.split(",") if name.strip()]
    found = extract(answer, fallbacks=names) if output else None
    text = (found.text if found else None) if output else answer
    explanation = explain(gold, text, Rules.parse(rules))
    if json:
        origin = found.origin if found else "none" if output else "given"
        verdict = {key: getattr(explanation.verdict, key) for key in ("outcome", "path", "reason")}
        details = {key: value for key, value in asdict(explanation).items() if key != "verdict"}
        print_json({**verdict, "found_as": origin, **details})
    else:
        if output:
            print(
                for_terminal(f"found as {found.origin}: {found.text}" if found else "no answer in the text")
            )
        print("\n".join(for_terminal(line) for line in str(explanation).splitlines()))
    outcome = explanation.verdict.outcome
    if outcome != "correct":
        raise typer.Exit(UNGRADED if outcome == "ungraded" else 1)
