"""What decides the rollouts of a run, as the manifest of its store says it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from lm_eval_eglr.decoding import PoolDecoder, RecursionConfig
from lm_eval_eglr.decoding.strategies import strategy_name
from lm_eval_eglr.decoding.strategies.grid import Grid
from lm_eval_eglr.recurrent.config import RecurrentConfig
from lm_eval_eglr.store import Manifest

SAMPLED_WEIGHTS = 64
GRID_OPTIONS = ("spans", "recurrences", "temperatures")
PACKAGES = ("lm-eval-eglr", "lm_eval", "torch", "transformers")


def manifest_of(decoder: PoolDecoder, model: PreTrainedModel, name: str, revision: str | None) -> Manifest:
    """Describes a run.

    Args:
        decoder: With the run's grid, recursion and sampling.
        model: The model as loaded, adapters included.
        name: What the user called it; of a folder only the last part, which moves with the weights.
        revision: Its revision.
    """
    cells = [str(cell) for cell in decoder.cells]
    strategy = {}
    if not isinstance(decoder.strategy, Grid):  # grids are told by their cells
        strategy["strategy"] = {"name": strategy_name(decoder.strategy), **_options(decoder)}
    fingerprint = {
        "model": Path(name).name if Path(name).is_dir() else name,
        "revision": revision or "main",
        "commit": getattr(model.config, "_commit_hash", None),
        "dtype": str(model.dtype).removeprefix("torch."),
        "weights": weights_digest(model),
        "depth": decoder.stack.depth,
        "cells": cells,
        **strategy,
        **_depth_options(decoder.engine.recursion),
        # Stores of spans once had a choice of ``kv``, and are continued.
        **({"axis": "R"} if decoder.engine.axis.letter == "R" else {"kv": "keep"}),
        **dataclasses.asdict(decoder.sampling),
    }
    return Manifest(fingerprint, {"python": platform.python_version(), **_versions()})


def _depth_options(config: RecursionConfig | RecurrentConfig) -> dict[str, object]:
    """The options of the depth axis; a default threshold is recorded as what it is today."""
    options = dataclasses.asdict(config)
    if config.exit != "none":
        options["exit_threshold"] = config.threshold
    if isinstance(config, RecursionConfig):
        # Stores of spans know the tolerance of kl only, and are continued.
        options["tolerance"] = config.threshold
        for name in ("exit", "exit_threshold") if config.exit == "kl" else ("tolerance",):
            del options[name]
    return options


def _options(decoder: PoolDecoder) -> dict[str, object]:
    """The strategy's options but for those that the cells say; ``budget=labels`` is recorded explicitly."""
    options = dataclasses.asdict(decoder.strategy)  # type: ignore[call-overload]  # every strategy is one
    shown = {name: value for name, value in options.items() if name not in GRID_OPTIONS}
    if shown.get("budget") == "labels":
        shown["budget"] = "labels (uses reference)"
    # JSON has no infinity.
    return {name: str(value) if value == math.inf else value for name, value in shown.items()}


def weights_digest(model: PreTrainedModel) -> str:
    """A digest of every parameter's name and shape and of some of its values.

    It tells two checkpoints apart that go by one name; it does not notice a single changed weight.
    """
    hasher = hashlib.blake2b(digest_size=8)
    for name, weights in model.named_parameters():
        hasher.update(f"{name} {tuple(weights.shape)}".encode())
        if weights.is_meta:  # offloaded: its values are not here
            continue
        # A process may hold a share of it.
        whole = weights.full_tensor() if isinstance(weights, DTensor) else weights
        flat = whole.detach().flatten()
        some = flat[:: max(1, len(flat) // SAMPLED_WEIGHTS)][:SAMPLED_WEIGHTS]
        hasher.update(some.float().cpu().numpy().tobytes())
    return hasher.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
