"""Runs of the tiny model in processes that are forked after the imports, one or several of one run.

Each is a whole run through lm_eval with a store, as a launcher would start it, without the seconds that
a new interpreter takes to import torch.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import traceback
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import accelerate.state
import lm_eval.evaluator
import lm_eval.utils
import tqdm
import tqdm.auto
from stored_runs import run_tiny

import lm_eval_eglr.harness.model
import lm_eval_eglr.harness.task  # noqa: F401  # both take seconds to import, which the forked ones need not

FORK = multiprocessing.get_context("fork")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def start(
    folder: Path, rollouts: Path, output: Path, environment: dict[str, str], **options: Any
) -> BaseProcess:
    """Starts one process of a run; its table goes to ``output`` and what it says to ``output`` + .log."""
    process = FORK.Process(target=_run, args=(folder, rollouts, output, environment, options))
    process.start()
    return process


def run_ranks(folder: Path, rollouts: Path, ranks: int, **options: Any) -> str:
    """Runs with so many processes over gloo; returns the table that the first one printed.

    Raises:
        AssertionError: With what they said, if one fails or takes longer than ten minutes.
    """
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    outputs = [rollouts.with_name(f"{rollouts.name}.{ranks}.{rank}.txt") for rank in range(ranks)]
    processes = []
    for rank, output in enumerate(outputs):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true", **shared}
        # Several threads round otherwise, and accelerate takes one per core unless it is told.
        own["OMP_NUM_THREADS"] = "1"
        processes.append(start(folder, rollouts, output, own if ranks > 1 else {}, **options))
    for process in processes:
        process.join(600)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * ranks, "\n".join(output.with_suffix(".log").read_text() for output in outputs)
    return outputs[0].read_text()


def _run(
    folder: Path, rollouts: Path, output: Path, environment: dict[str, str], options: dict[str, Any]
) -> None:
    # A runner in the background may have been started with interrupts ignored, and a fork inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What pytest has put in the place of these would capture what this process says.
    sys.stdout = sys.stderr = output.with_suffix(".log").open("w", buffering=1)
    os.dup2(sys.stderr.fileno(), 2)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, force=True)
    # Progress bars share a lock with the process that forked this one, which waits for ever if this one is
    # killed while it holds it.
    for bar in (tqdm.tqdm, tqdm.auto.tqdm):
        bar.set_lock(threading.RLock())
    os.environ.update(environment)
    # What this process inherits may say that it is alone.
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    try:
        results = run_tiny(folder, rollouts, **options)
        output.write_text("" if results is None else lm_eval.utils.make_table(results))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
