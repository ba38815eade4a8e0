"""What a step costs the host: one transfer from the device, few function calls, and few files to read."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tiny_models import tiny_model

import lm_eval_eglr.decoding
from lm_eval_eglr.decoding import PoolDecoder, numerics
from lm_eval_eglr.decoding.model.runner import EagerRunner

FOLDER = Path(lm_eval_eglr.decoding.__file__).parent
PROMPTS = ["Tom has 3", "What is 12 * 7?"]
GRID = {"spans": "0:1:3", "temperatures": "0:0.8x2", "entropy_threshold": 1.0}
EAGER = {"strategy": "eager", "n": 4, "branch_threshold": 2.5}
WAITING = {
    *("cpu", "tolist", "item", "numpy", "nonzero", "unique", "masked_select", "argwhere"),
    *("__bool__", "__int__", "__float__", "__index__", "__len__of_mask__"),
}


class OnDevice(torch.Tensor):
    """Stands for a tensor on a GPU: what is computed of it is one, too, and what waits for it is counted."""

    waits: ClassVar[Counter[str]] = Counter()

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        masks = name == "__getitem__" and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if isinstance(args[1], tuple) else (args[1],))
        )
        if name in WAITING or masks:
            cls.waits[name] += 1
            plain = [arg.as_subclass(torch.Tensor) if isinstance(arg, cls) else arg for arg in args]
            return function(*plain, **(kwargs or {}))
        return super().__torch_function__(function, types, args, kwargs)


@pytest.mark.parametrize(
    "options",
    [{"spans": "0", "temperatures": "0:1x3"}, GRID, {**GRID, "top_p": 0.9, "share": False}, EAGER],
    ids=str,
)
def test_a_step_waits_for_the_device_once(options, llama, tokenizer, monkeypatch):
    monkeypatch.setattr(numerics, "largest", lambda rows, count: rows.topk(count).values)  # as on a GPU
    decoder = PoolDecoder(llama, tokenizer, **options)
    passes = []

    def make(stack, cache):
        run = EagerRunner(stack, cache)

        def runner(batch):
            output = run(batch)
            passes.append(len(batch.recursions))
            return dataclasses.replace(output, logprobs=output.logprobs.as_subclass(OnDevice))

        return runner

    decoder.engine.make_runner = make
    OnDevice.waits.clear()
    decoder.generate(PROMPTS, max_new_tokens=12, until=["zq"], progress=False)
    assert OnDevice.waits == {"cpu": len(passes)}
    assert any(passes) == ("entropy_threshold" in options)


def test_few_functions_are_called_for_a_token(tokenizer):
    """Of 256 rows; those of the model are counted, too."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = tiny_model(**sizes)
    model.generation_config.eos_token_id = None
    bare = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
    decoder = PoolDecoder(model, bare, spans="0", temperatures="1x16", max_rows=256)
    prompts = [f"Prompt {number}" for number in range(16)]
    decoder.generate(prompts, max_new_tokens=2, progress=False)
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        pools = decoder.generate(prompts, max_new_tokens=100, progress=False)
    finally:
        sys.setprofile(None)
    tokens = sum(len(rollout.tokens) for pool in pools for rollout in pool)
    assert tokens == 16 * 16 * 100
    print(f"{calls / tokens:.2f} function calls per token")
    assert calls <= 6 * tokens


def files_of(decoder, wanted):
    """Files of the engine in the order in which a step of a kind, without an event, enters them."""
    steps: list[list[str]] = []
    engine, step = decoder.engine, decoder.engine.step
    seen: dict[str, None] = {}

    def note(frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and FOLDER in path.parents:
            seen[str(path.relative_to(FOLDER))] = None

    def watched():
        seen.clear()
        before, events, recursed = len(engine.tree.jobs), engine.tree.events, len(engine._recursions)
        sys.setprofile(note)
        try:
            done = step()
        finally:
            sys.setprofile(None)
        quiet = before and events == engine.tree.events and done is not None and done.tokens
        if quiet and wanted(recursed):
            steps.append(list(seen))
        return done

    engine.step = watched
    decoder.generate(PROMPTS[0], max_new_tokens=30, progress=False)
    assert steps
    return min(steps, key=len)


@pytest.mark.parametrize(
    ("kind", "options", "most"),
    [
        ("greedy", {"spans": "0", "temperatures": "0"}, 10),
        ("recursed", {"spans": "2", "temperatures": "0", "entropy_threshold": 0.5}, 13),
    ],
)
def test_a_token_crosses_few_files(kind, options, most, llama, tokenizer):
    decoder = PoolDecoder(llama, tokenizer, **options)
    files = files_of(decoder, bool if kind == "recursed" else (lambda recursed: not recursed))
    print(f"a {kind} token crosses {len(files)} files: {', '.join(files)}")
    assert 5 < len(files) <= most


def test_the_folder_stays_small():
    files = sorted(FOLDER.rglob("*.py"))
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert len([path for path in files if path.name != "__init__.py"]) <= 33
    assert {len(path.relative_to(FOLDER).parts) for path in files} == {1, 2}
    short = {path.name for path, length in lengths.items() if length < 40}
    assert short <= {"__init__.py"}
    assert max(lengths.values()) <= 400
