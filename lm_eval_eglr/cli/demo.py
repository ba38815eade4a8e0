"""``eglr demo``: the main job on the embedded model, then the table and the page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lm_eval_eglr.cli.output import say
from lm_eval_eglr.cli.report import report

GRID = {"spans": "0:4:8", "temperatures": "0:0.7x2"}
SHOTS = 4  # without worked examples so small a model seldom ends with an answer


def demo(
    folder: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the rollouts and the page.")
    ] = Path("eglr-demo"),
    limit: Annotated[int | None, typer.Option(help="Only so many of the 20 problems.")] = None,
    max_gen_toks: Annotated[int, typer.Option(help="Length limit of a rollout, tokens.")] = 96,
) -> None:
    """Run the main job on a small embedded model and 20 word problems; then the table and the page.

    A stopped run continues where it was: start it again. Exits with 0, or with 2 when the model is missing.
    """
    from lm_eval_eglr.embedded_model import embedded_model

    arguments = {
        **embedded_model(),
        **GRID,
        "rollouts": str(folder / "rollouts"),
        "trace": True,
        "dtype": "float32",
        "batch_size": 64,
    }
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all that it needs is on this machine
    import lm_eval  # seconds of imports, after what can be refused at once
    import torch
    from lm_eval.utils import make_table

    from lm_eval_eglr import harness

    harness.install()
    model_args = ",".join(f"{key}={value}" for key, value in arguments.items())
    say(
        f"+ lm_eval --model hf-eglr --model_args {model_args} --tasks demo_eglr --num_fewshot {SHOTS} "
        f"--apply_chat_template --gen_kwargs max_gen_toks={max_gen_toks}"
    )
    results = lm_eval.simple_evaluate(
        model="hf-eglr",
        model_args=arguments,
        tasks=["demo_eglr"],
        num_fewshot=SHOTS,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        device="cuda" if torch.cuda.is_available() else "cpu",
        limit=limit,
        gen_kwargs={"max_gen_toks": max_gen_toks},
        bootstrap_iters=100,
    )
    print(make_table(results))
    report(
        [folder / "rollouts"],
        output=folder / "report.html",
        selector=None,
        figures=None,
        max_size=30.0,
        picture="svg",
    )
    say(f"select again without the model: eglr select {folder / 'rollouts'}")
