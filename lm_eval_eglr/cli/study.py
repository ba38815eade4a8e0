"""``eglr study``: a whole replication, from the model to the page."""

from __future__ import annotations

import json as json_module
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lm_eval_eglr.cli.output import log, progress
from lm_eval_eglr.cli.report import report
from lm_eval_eglr.cli.sources import open_store
from lm_eval_eglr.paths import SHIPPED, resolve

POWER = "power.json"
TOKENIZER_OPTIONS = ("revision", "gguf_file", "subfolder", "trust_remote_code")


def study(
    model: Annotated[
        str, typer.Argument(help="Hub name or folder; demo is the small model that ships with the package.")
    ],
    tasks: Annotated[
        str, typer.Option(metavar="NAME[,NAME]", help="Tasks, such as math500_eglr,gsm8k_eglr.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the stores, tables and pages.")],
    spans: Annotated[str | None, typer.Option(help="Spans of the grid. [default: those of hf-eglr]")] = None,
    recurrences: Annotated[
        str | None,
        typer.Option(help="Recurrences of the grid, of a recurrent-depth model. [default: its own number]"),
    ] = None,
    temperatures: Annotated[
        str | None, typer.Option(help="Temperatures of the grid. [default: those of hf-eglr]")
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option(help="Temperatures of the plain rollouts. [default: as many rollouts as the grid has]"),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many problems of each task.")] = None,
    model_args: Annotated[
        str,
        typer.Option(metavar="KEY=VALUE[,...]", help="Other arguments of hf-eglr, such as dtype=bfloat16."),
    ] = "",
    gen_kwargs: Annotated[
        str | None, typer.Option(metavar="KEY=VALUE[,...]", help="Such as max_gen_toks=640.")
    ] = None,
    num_fewshot: Annotated[int | None, typer.Option(help="Worked examples in the prompt.")] = None,
    chat_template: Annotated[
        bool | None,
        typer.Option(help="Whether prompts are chat messages. [default: if the model has a template]"),
    ] = None,
    batch_size: Annotated[str, typer.Option(help="Rows decoded at once, or auto.")] = "auto",
    device: Annotated[str | None, typer.Option(help="Such as cuda:0 or cpu.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    include_path: Annotated[Path | None, typer.Option(help="Folder of other tasks.")] = None,
    difference: Annotated[
        float, typer.Option(help="Difference, in points, that the power before the run is stated for.")
    ] = 3.0,
    discordant: Annotated[
        float,
        typer.Option(help="Problems, in per cent, that only one of the two pools is expected to solve."),
    ] = 8.0,
    picture: Annotated[str, typer.Option(help="Kind of the figures' files: svg, png or none.")] = "svg",
) -> None:
    """Run a replication: decode a grid and as many plain rollouts, then write tables, figures and pages.

    States first how many problems it takes to see a difference of 3 points. A stopped study continues where
    it was: give the same command again. Under torchrun or accelerate (python -m lm_eval_eglr.cli study ...)
    the problems are split over the processes. Exits with 0, with 1 when a store is damaged, with 2 when an
    option is wrong.
    """
    if picture not in ("svg", "png", "none"):
        raise ValueError(f"picture={picture!r}: expected one of svg, png, none")
    if model in SHIPPED:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all that it needs is on this machine
    from lm_eval_eglr.study.run import StudyPlan, decode_study, first_process, problem_counts
    from lm_eval_eglr.study.verdict import power_statement

    power_statement({}, difference / 100, discordant / 100)  # refuses what is no share
    plan = StudyPlan(
        model,
        tuple(name.strip() for name in tasks.split(",")),
        out,
        spans,
        temperatures,
        samples,
        _arguments(model_args),
        gen_kwargs,
        limit,
        num_fewshot,
        bool(chat_template),
        batch_size,
        device,
        seed,
        include_path,
        recurrences,
    )
    if chat_template is None:
        plan = replace(plan, apply_chat_template=_has_template(plan))
    lines = power_statement(problem_counts(plan), difference / 100, discordant / 100)
    if first_process():
        print("Power, before the first rollout\n", *lines, sep="\n", flush=True)
        lines = _recorded(out, lines)
    stores = decode_study(plan, log)
    if first_process():
        _write(plan, stores, lines, picture)


def _recorded(out: Path, lines: list[str]) -> list[str]:
    """Adds a statement of power to those of earlier runs, so that none can be improved on afterwards."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / POWER
    earlier: list[list[str]] = json_module.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    if lines not in earlier:
        earlier.append(lines)
        path.write_text(json_module.dumps(earlier, indent=1) + "\n", encoding="utf-8")
    return [
        line if len(earlier) == 1 else f"run {number}: {line}"
        for number, statement in enumerate(earlier, 1)
        for line in statement
    ]


def _write(plan: Any, stores: dict[str, Path], power: list[str], picture: str) -> None:
    """Writes tables and pages of what was decoded; the first process does."""
    from lm_eval_eglr.reports.tables import print_rich
    from lm_eval_eglr.study.matched import match_stores
    from lm_eval_eglr.study.page import write_study
    from lm_eval_eglr.study.tables import TABLES, titles
    from lm_eval_eglr.study.verdict import verdict

    studies = match_stores([open_store(folder) for folder in stores.values()])
    tables = {name: TABLES[name](studies) for name in progress(list(TABLES), "Computing tables")}
    said = verdict(studies)
    for name in ("structure", "budgets", "cost"):
        print_rich(tables[name])
    print("\n".join(said))
    command = shlex.join(["eglr", *sys.argv[1:]])
    title = f"{plan.model} on {', '.join(plan.tasks)}"
    for path in write_study(
        plan.out,
        title=title,
        command=command,
        power=power,
        verdict=said,
        tables=tables,
        titles=titles(studies),
    ):
        log(f"wrote {path}")
    try:
        report(
            list(stores.values()),
            output=plan.out / "report.html",
            selector=None,
            figures=None if picture == "none" else plan.out / "figures",
            max_size=30.0,
            picture="svg" if picture == "none" else picture,
        )
    except ValueError as error:
        if not str(error).startswith("--figures"):
            raise
        log(f"no figures as files, they are in report.html: {error}")


def _arguments(text: str) -> dict[str, Any]:
    from lm_eval.utils import simple_parse_args_string

    for part in filter(None, text.split(",")):
        if "=" not in part:
            raise ValueError(f"model_args={text!r}: expected KEY=VALUE, not {part!r}")
    return dict(simple_parse_args_string(text)) if text else {}


def _has_template(plan: Any) -> bool:
    from transformers import AutoTokenizer

    shared = {key: plan.model_args[key] for key in TOKENIZER_OPTIONS if key in plan.model_args}
    tokenizer = AutoTokenizer.from_pretrained(
        resolve(str(plan.model_args.get("tokenizer", plan.model))), **shared
    )
    return bool(getattr(tokenizer, "chat_template", None))
