"""The run of a study: the grid, as many plain rollouts and the greedy column, each in a store of its own."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eglr_selectors import Cell
from eglr_selectors.depth_axis import axis_of, baseline_depth

from lm_eval_eglr.decoding.strategies.grid import check_levels, parse_temperatures
from lm_eval_eglr.paths import tasks_folder
from lm_eval_eglr.store import Manifest

SAMPLED = 0.7
"""Temperature of the plain rollouts where the grid samples nothing."""

SET_BY_THE_STUDY = (
    *("pretrained", "spans", "recurrences", "temperatures", "rollouts"),
    *("strategy", "seed", "n", "temperature"),
)


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What a study decodes, checked when made.

    Attributes:
        model: Hub name, folder, or ``demo``.
        tasks: Tasks of this project, or of ``include_path``.
        out: Folder of the stores ``grid``, ``samples`` and, where the grid has no column T = 0, ``greedy``.
        spans: Spans of the grid, as of hf-eglr; ``None`` is its default.
        temperatures: Temperatures of the grid, likewise.
        samples: Temperatures of the plain rollouts; ``None`` is :func:`plain_temperatures` of the grid.
        model_args: Other arguments of hf-eglr, such as ``dtype``.
        gen_kwargs: Generation options, such as ``max_gen_toks=640``.
        limit: Only so many problems of each task.
        num_fewshot: Worked examples in the prompt.
        apply_chat_template: Whether prompts are chat messages.
        batch_size: As of lm_eval: rows decoded at once, or ``auto``.
        device: As of lm_eval.
        seed: Of the draws.
        include_path: Folder of other tasks.
        recurrences: Recurrences of the grid, in place of spans.
    """

    model: str
    tasks: tuple[str, ...]
    out: Path
    spans: str | None = None
    temperatures: str | None = None
    samples: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    gen_kwargs: str | None = None
    limit: int | None = None
    num_fewshot: int | None = None
    apply_chat_template: bool = False
    batch_size: str = "64"
    device: str | None = None
    seed: int = 0
    include_path: Path | None = None
    recurrences: str | None = None

    def __post_init__(self) -> None:
        if not self.tasks or not all(self.tasks):
            raise ValueError(f"tasks={','.join(self.tasks)!r}: expected names separated by commas")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit!r}: expected an integer >= 1")
        if self.batch_size != "auto" and not (self.batch_size.isdigit() and int(self.batch_size) > 0):
            raise ValueError(f"batch_size={self.batch_size!r}: expected an integer >= 1, or auto")
        if self.include_path is not None and not self.include_path.is_dir():
            raise ValueError(f"include_path={str(self.include_path)!r}: expected a folder")
        for name in self.model_args:
            if name in SET_BY_THE_STUDY:
                raise ValueError(f"model_args {name}={self.model_args[name]!r}: the study sets {name}")
        check_levels(self.spans, self.recurrences)
        parse_temperatures(self.temperatures)
        parse_temperatures(self.samples)

    @property
    def greedy_apart(self) -> bool:
        """Whether the grid has no greedy column, so that greedy rollouts need a store of their own."""
        return 0 not in parse_temperatures(self.temperatures)

    def stores(self) -> dict[str, Path]:
        """Returns the stores by name, in the order in which they are decoded."""
        names = ("grid", "samples", *(("greedy",) if self.greedy_apart else ()))
        return {name: self.out / name for name in names}


def decode_study(plan: StudyPlan, log: Callable[[str], None] = print) -> dict[str, Path]:
    """Decodes what is missing of a study, in this process or in all processes of a launcher.

    Args:
        plan: What to decode.
        log: Is told of every run, by the first process.

    Returns:
        The stores by name.
    """
    stores = plan.stores()
    for name, folder in stores.items():
        cells: dict[str, Any] = {}
        if name == "samples":
            # The grid is there, so its cells are known, whatever the model's depth made of its spans.
            there = cells_of(stores["grid"])
            own = plan.samples or plain_temperatures(there)
            levels = "spans" if axis_of(there).symbol == "L" else "recurrences"
            cells = {levels: str(baseline_depth(there)), "temperatures": own}
        else:
            temperatures = "0" if name == "greedy" else plan.temperatures
            given = {"spans": plan.spans, "recurrences": plan.recurrences}
            chosen = {**given, "temperatures": temperatures}
            cells = {key: value for key, value in chosen.items() if value is not None}
        if first_process():
            log(f"{name}: {', '.join(f'{key}={value}' for key, value in cells.items()) or 'default grid'}")
        _evaluate(plan, {**cells, "rollouts": str(folder)})
    return stores


def cells_of(folder: Path) -> list[Cell]:
    """Returns the cells that a store's manifest names."""
    return [Cell.parse(text) for text in Manifest.read(folder).fingerprint["cells"]]


def plain_temperatures(cells: Sequence[Cell]) -> str:
    """Returns temperatures for as many plain rollouts as a grid has cells.

    Greedy decoding occurs once if it is in the grid, since its repetitions would be equal; the rest is spread
    over the grid's other temperatures as the grid spreads its own, or over 0.7 if it has none.
    """
    counts = Counter(cell.temperature for cell in cells if cell.temperature)
    greedy = any(cell.temperature == 0 for cell in cells)
    left = len(cells) - greedy
    if not counts:
        counts = Counter({SAMPLED: 1})
    whole = sum(counts.values())
    shares = {temperature: left * count // whole for temperature, count in counts.items()}
    for temperature in list(counts)[: left - sum(shares.values())]:
        shares[temperature] += 1
    parts = ["0"] * greedy + [f"{t:g}x{count}" for t, count in shares.items() if count]
    return ":".join(parts)


def problem_counts(plan: StudyPlan) -> dict[str, int]:
    """Returns how many problems of each task the study decodes."""
    loaded: Mapping[str, Any] = _task_manager(plan).load(list(plan.tasks))["tasks"]
    counts = {name: len(task.eval_docs) for name, task in loaded.items()}
    return {name: min(count, plan.limit or count) for name, count in counts.items()}


def first_process() -> bool:
    """Whether this process is the one that prints and writes tables."""
    return int(os.environ.get("RANK", 0)) == 0


def _evaluate(plan: StudyPlan, options: Mapping[str, Any]) -> None:
    """Runs the job as lm_eval's command line does; the store keeps the rollouts."""
    import lm_eval
    import torch

    lm_eval.simple_evaluate(
        model="hf-eglr",
        model_args={"pretrained": plan.model, **plan.model_args, **options, "seed": plan.seed},
        tasks=list(plan.tasks),
        task_manager=_task_manager(plan),
        gen_kwargs=plan.gen_kwargs,
        num_fewshot=plan.num_fewshot,
        apply_chat_template=plan.apply_chat_template,
        batch_size=plan.batch_size,
        device=plan.device,
        limit=plan.limit,
        bootstrap_iters=0,
    )
    gc.collect()  # the next run loads the model again
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _task_manager(plan: StudyPlan) -> Any:
    from lm_eval.tasks import TaskManager

    from lm_eval_eglr.harness import plugin

    plugin.install()
    folders = [str(tasks_folder())]
    if plan.include_path is not None:
        folders.append(str(plan.include_path))
    # Only ours: lm_eval's own twelve thousand take ten seconds to scan. Every selector is run on the stores.
    return TaskManager(include_path=folders, include_defaults=False, metadata={"selectors": "greedy"})
