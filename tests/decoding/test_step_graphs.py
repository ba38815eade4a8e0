"""Laws of passes of fixed shape: with graphs and without, the same rollouts.

On a machine without a CUDA device a graph is stood in for by running its computation again into the memory
that the first run wrote to, as a replay does; what is left untested then is torch's capture alone.
"""

from __future__ import annotations

import logging

import pytest
import torch
from tiny_models import CONFIGS, DEPTH, tiny_model

from lm_eval_eglr.decoding import PoolDecoder, engine, step_graphs
from lm_eval_eglr.decoding.stopping import StopRule

PROMPTS = ["Tom has 3 apples and buys 4 more, so", "What is 12 * 7?", "x"]
IN_FP32 = ("qwen3-moe", "gpt-oss", "mixtral")  # torch's grouped products take no fp64
EAGER = {"strategy": "eager", "n": 8, "temperature": 1.0, "branch_threshold": 1.0}
GPU = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: nothing captured")
)


class StandIn:
    """Counts captures and replays."""

    def __init__(self):
        self.captures = self.replays = 0

    def capture(self, compute, pool):
        self.captures += 1
        step, memory = compute.__self__, []

        def outputs():
            return [step.logprobs, step.states, step.residuals.hidden, *step.residuals.inputs.values()]

        def replay():
            self.replays += 1
            compute()
            if not memory:
                memory.append((outputs(), (step.logprobs, step.states, step.residuals)))
                return
            before, names = memory[0]
            for old, new in zip(before, outputs(), strict=True):
                old.copy_(new.clone())
            step.logprobs, step.states, step.residuals = names

        return replay


@pytest.fixture(params=["cpu", GPU])
def device(request):
    return request.param


@pytest.fixture
def counts(device, monkeypatch):
    counts = StandIn()
    if device == "cpu":
        monkeypatch.setattr(engine, "can_capture", lambda model: True)
        monkeypatch.setattr(step_graphs, "graph_pool", lambda: "memory")
        monkeypatch.setattr(step_graphs, "capture", counts.capture)
        return counts
    real = step_graphs.capture

    def capture(compute, pool):
        counts.captures += 1
        replay = real(compute, pool)

        def counted():
            counts.replays += 1
            replay()

        return counted

    monkeypatch.setattr(step_graphs, "capture", capture)
    return counts


def rollouts(model, tokenizer, **options):
    if "strategy" not in options:
        grid = {"spans": [0, 1, DEPTH // 2, DEPTH], "temperatures": "0:1x2"}
        options = {**grid, "entropy_threshold": 1.0, "tolerance": 0.02, **options}
    decoder = PoolDecoder(model, tokenizer, **options)
    return [
        [(rollout.cell, rollout.tokens, rollout.telemetry.recursions) for rollout in pool]
        for pool in decoder.generate(PROMPTS, max_new_tokens=24, progress=False)
    ]


def compare(device, counts, family, tokenizer, **options):
    """Rollouts with graphs and without, on one device: another one computes rotations to other last bits."""
    model = tiny_model(family).to(device)
    if family not in IN_FP32:
        model = model.double()
    without = rollouts(model, tokenizer, cuda_graphs=False, **options)
    assert not counts.captures
    assert rollouts(model, tokenizer, **options) == without
    assert any(recursions for pool in without for _, _, recursions in pool)
    assert counts.captures
    # Experts in fp32 are run one by one on a GPU, by numbers that it tells, which a graph cannot wait for.
    if device == "cpu" or family not in IN_FP32:
        assert counts.captures < counts.replays


@pytest.mark.parametrize("family", CONFIGS)
def test_every_architecture(family, device, counts, tokenizer):
    compare(device, counts, family, tokenizer)


@pytest.mark.parametrize("kv", ["keep", "overwrite"])
@pytest.mark.parametrize("update", ["anchored", "damped", "replace"])
def test_every_rule(update, kv, device, counts, tokenizer, monkeypatch):
    monkeypatch.setattr(step_graphs, "PATIENCE", 1)  # as in long runs, where every shape gets its graph
    compare(device, counts, "llama", tokenizer, update=update, kv=kv, max_recursions=3)


@pytest.mark.parametrize(
    "options",
    [{"share": False}, {"max_rows": 12}, {"max_rows": 48}, {"spans": "0"}, EAGER],
    ids=str,
)
def test_every_batch(options, device, counts, tokenizer):
    model = tiny_model("llama").double().to(device)
    without = rollouts(model, tokenizer, cuda_graphs=False, **options)
    assert rollouts(model, tokenizer, **options) == without
    assert counts.replays


def test_requests_of_other_spans_join_a_running_batch(device, counts, tokenizer):
    """Shapes are captured for the spans of the requests so far."""
    model = tiny_model("llama").double().to(device)

    def run(graphs):
        options = {"spans": "0:1:2:4", "temperatures": "0", "entropy_threshold": 1.0, "max_rows": 4}
        decoder = PoolDecoder(model, tokenizer, **options, cuda_graphs=graphs)
        requests = [
            decoder.request(tokenizer(prompt).input_ids, cells, 24, StopRule(), f"{prompt} {len(cells)}")
            for cells in (decoder.cells[:1], decoder.cells[:2], decoder.cells[2:])
            for prompt in PROMPTS
        ]
        pools = dict(decoder.decode(requests))
        return [[rollout.tokens for rollout in pools[number]] for number in range(len(requests))]

    assert run(False) == run(True)
    assert counts.replays


def test_what_cannot_be_captured_is_said_once_and_runs(device, counts, tokenizer, monkeypatch, caplog):
    model = tiny_model("llama").double().to(device)
    without = rollouts(model, tokenizer, cuda_graphs=False)
    if device == "cpu":

        def refuse(compute, pool):
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

        monkeypatch.setattr(step_graphs, "capture", refuse)
    else:
        model.model.layers[1].register_forward_pre_hook(lambda module, args: args[0].sum().item() and None)
    with caplog.at_level(logging.WARNING):
        assert rollouts(model, tokenizer) == without
    assert not counts.replays
    assert [record.message.count("CUDA graphs") for record in caplog.records] == [1]


def test_out_of_memory_while_capturing_goes_on_with_fewer_rows(device, counts, tokenizer, monkeypatch):
    model = tiny_model("llama").double().to(device)
    without = rollouts(model, tokenizer, cuda_graphs=False)
    capture, failures = step_graphs.capture, []

    def fail(compute, pool):
        if not failures:
            failures.append(1)
            raise torch.OutOfMemoryError("no memory")
        return capture(compute, pool)

    monkeypatch.setattr(step_graphs, "capture", fail)
    assert rollouts(model, tokenizer) == without
    assert failures
    assert counts.replays


def test_a_model_on_a_cpu_is_not_captured():
    assert not step_graphs.can_capture(tiny_model("llama"))
