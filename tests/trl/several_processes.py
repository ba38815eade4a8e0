"""A short GRPO run, the same on any number of processes: ``several_processes.py FOLDER BATCH_PER_PROCESS``.

Each process writes the completions of its steps and the metrics that it logged.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' own modules

import torch

torch.set_num_threads(1)

from training_runs import GRID, PROMPTS, Recorder, trainer  # noqa: E402

from lm_eval_eglr.trl import PoolRollouts  # noqa: E402

if __name__ == "__main__":
    folder, batch = Path(sys.argv[1]), int(sys.argv[2])
    seen = Recorder()
    run = trainer(
        folder / "run",
        PoolRollouts(**{**GRID, "temperatures": "0.7:1"}),
        prompts=[*PROMPTS[:2], PROMPTS[1]] * 2,  # the third group of a step repeats the second
        reward=seen,
        settings={"per_device_train_batch_size": batch, "learning_rate": 1e-3},
    )
    run.train()
    metrics = [{k: v for k, v in each.items() if k.startswith("sampling")} for each in run.state.log_history]
    rank = os.environ.get("RANK", "0")
    (folder / f"{rank}.json").write_text(json.dumps([seen.completions, metrics]))
