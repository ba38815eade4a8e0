"""``eglr demo``: the main job on the shipped model, beside temperature alone at the same budget."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lm_eval_eglr.cli.output import log, say
from lm_eval_eglr.cli.report import MAX_SIZE, write_page
from lm_eval_eglr.cli.sources import open_store, selectors_of
from lm_eval_eglr.paths import DEMO, DEMO_RECURRENT, tasks_folder
from lm_eval_eglr.reports.equal_budget import EqualBudget
from lm_eval_eglr.reports.tables import print_rich

TASK = "demo_eglr"
ROWS = 256
RUNS = {
    DEMO: {"grid": "spans=0:1:2:4,temperatures=0:0.7x3", "temperature": "spans=0,temperatures=0:0.7x15"},
    DEMO_RECURRENT: {
        "grid": "recurrences=1:2:4:8,temperatures=0:0.7x3",
        "temperature": "recurrences=8,temperatures=0:0.7x15",
    },
}
KINDS = {DEMO: "model of 1.6 million parameters", DEMO_RECURRENT: "small recurrent-depth model"}
NATURE = (
    "{model} is a {kind} that ships with the package, trained on generated word "
    "problems: a demonstration and a test fixture. Its figures say nothing of other models."
)


def demo(
    folder: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Folder of the rollouts and the page. [default: eglr-demo, or eglr-MODEL]"
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Only so many of the 500 problems.")] = 200,
    model: Annotated[str, typer.Option(help=f"{DEMO}, or {DEMO_RECURRENT}, which iterates a block.")] = DEMO,
) -> None:
    """Run the main job on the small model that ships with the package: page, table, verdict.

    Decodes the 4 × 4 grid of 200 held-out word problems, spans or recurrences by temperatures, then as many
    rollouts of temperature alone. A
    stopped run continues where it was: start it again. Exits with 0, or with 2 when an option is wrong.
    """
    if limit < 1:
        raise ValueError(f"limit={limit!r}: expected an integer >= 1")
    if model not in RUNS:
        raise ValueError(f"model={model!r}: expected one of {', '.join(RUNS)}")
    folder = folder or Path(f"eglr-{model}")
    log(NATURE.format(model=model, kind=KINDS[model]))
    stores = {name: folder / name for name in RUNS[model]}
    for name, cells in RUNS[model].items():
        _decode(f"pretrained={model},{cells},trace=True,rollouts={stores[name]}", limit)
    page = folder / "report.html"
    opened = [open_store(path) for path in stores.values()]
    grid, temperature = documents = [store.documents(TASK) for store in opened]
    tables = [(store, TASK, each) for store, each in zip(opened, documents, strict=True)]
    write_page(tables, page, selectors_of(None), MAX_SIZE)
    compared = EqualBudget([each.parsed for each in grid], [each.parsed for each in temperature])
    log(f"all strategies: eglr compare {folder}")
    log(f"every rollout: {page}")
    print()
    print_rich(replace(compared.table(), title=f"{model} · {TASK} · {len(grid)} problems · {folder}"))
    print()
    say(compared.verdict())


def _decode(model_args: str, limit: int) -> None:
    """Runs the job as lm_eval's command line does; its store keeps the rollouts for the tables."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all that it needs is on this machine
    import lm_eval  # seconds of imports, after what can be refused at once
    from lm_eval.tasks import TaskManager

    from lm_eval_eglr.harness import plugin

    plugin.install()
    log(
        f"+ lm_eval --model hf-eglr --model_args {model_args} --tasks {TASK} --apply_chat_template "
        f"--batch_size {ROWS} --limit {limit} --metadata selectors=greedy"
    )
    lm_eval.simple_evaluate(
        model="hf-eglr",
        model_args=model_args,
        tasks=[TASK],
        # Only ours: lm_eval's own twelve thousand take ten seconds to scan.
        task_manager=TaskManager(
            include_path=str(tasks_folder()),
            include_defaults=False,
            # Every selector is run on the store, with intervals; the harness need not do it too.
            metadata={"selectors": "greedy"},
        ),
        apply_chat_template=True,
        batch_size=ROWS,
        limit=limit,
        bootstrap_iters=0,
    )
