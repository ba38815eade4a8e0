"""What a step costs the host: few function calls, few files to read. test_pretended_cuda.py counts waits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny_models import tiny_model

import lm_eval_eglr.decoding
from lm_eval_eglr.decoding import PoolDecoder

FOLDER = Path(lm_eval_eglr.decoding.__file__).parent
PROMPTS = ["Tom has 3", "What is 12 * 7?"]
GRID = {"spans": "0:1:3", "temperatures": "0:0.8x2", "entropy_threshold": 1.0}
EAGER = {"strategy": "eager", "n": 4, "branch_threshold": 2.5}


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
