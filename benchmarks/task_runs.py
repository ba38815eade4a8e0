"""What comparisons on a task share: arguments, decoding through lm_eval into stores, what is written."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eglr_selectors import ParsedPool

from lm_eval_eglr.paths import tasks_folder
from lm_eval_eglr.store import read_store

Difference = tuple[float, float, float]
"""Mean difference and the ends of its paired 95 % interval, shares of the problems."""


def task_parser(description: str | None, out: str) -> argparse.ArgumentParser:
    """The arguments of every comparison; ``out`` is the default folder."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-args", default="pretrained=demo,dtype=float32", help="without a strategy")
    parser.add_argument("--task", default="demo_eglr")
    parser.add_argument("--limit", type=int, help="problems; all by default")
    parser.add_argument("--num-fewshot", type=int)
    parser.add_argument("--apply-chat-template", action="store_true")
    parser.add_argument("--max-gen-toks", type=int)
    parser.add_argument("--batch-size", default="64")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=out)
    return parser


def decode(arguments: argparse.Namespace, name: str, options: str) -> Path:
    """Runs one variant through lm_eval into a store of its own; a second run goes on from it."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    store = Path(arguments.out) / "".join(c if c.isalnum() else "_" for c in name)
    lm_eval.simple_evaluate(
        model="hf-eglr",
        model_args=f"{arguments.model_args},{options},rollouts={store},seed={arguments.seed}",
        tasks=[arguments.task],
        # Only ours: lm_eval's own twelve thousand take ten seconds to scan.
        task_manager=TaskManager(
            include_path=str(tasks_folder()),
            include_defaults=False,
            metadata={"selectors": "majority,oracle"},
        ),
        limit=arguments.limit,
        num_fewshot=arguments.num_fewshot,
        apply_chat_template=arguments.apply_chat_template,
        batch_size=arguments.batch_size,
        gen_kwargs=f"max_gen_toks={arguments.max_gen_toks}" if arguments.max_gen_toks else None,
        bootstrap_iters=0,
    )
    return store


def parsed_pools(store: Path, task: str) -> list[ParsedPool]:
    """The pools of a store in the order of their problems, read and graded."""
    return [document.parsed for document in read_store(store).documents(task)]


def at(estimator: Callable[..., Any], pools: Sequence[ParsedPool], k: float) -> np.ndarray:
    """An estimator of whole k between two of them, ``[problems]``; 0 rollouts solve nothing."""
    low, high = math.floor(k), math.ceil(k)
    ends = [np.zeros(len(pools)) if each == 0 else estimator(pools, each).values for each in (low, high)]
    return ends[0] + (k - low) * (ends[1] - ends[0]) if high > low else ends[0]


def points(difference: Difference) -> str:
    """A difference in percentage points, with its interval."""
    value, low, high = (100 * each for each in difference)
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def about(
    arguments: argparse.Namespace, problems: dict[str, int], hidden: Sequence[str]
) -> dict[str, object]:
    """What a table was made with; ``hidden`` arguments decide nothing in it."""
    return {
        **problems,
        **{key: value for key, value in vars(arguments).items() if key not in ("out", *hidden)},
        **{name: version(name) for name in ("lm-eval-eglr", "lm_eval", "transformers")},
        "torch": torch.__version__,
    }


def listed(facts: dict[str, object]) -> str:
    """What :func:`about` returns, as the last line of a table."""
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def write(out: str, record: dict[str, object], table: str) -> None:
    """Writes ``results.json`` and ``results.md`` and prints the table."""
    folder = Path(out)
    (folder / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "results.md").write_text(table)
    print(table)
