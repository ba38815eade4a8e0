"""Laws of passes of fixed shape: with graphs and without, the same rollouts.

On a machine without a CUDA device a graph is stood in for by running its computation again, which writes its
distributions where all graphs write them; what is left untested then is torch's capture. Three architectures
say there what all say on a GPU: a dense one, one with sliding windows, one with experts.
"""

from __future__ import annotations

import logging

import pytest
import torch
from tiny_models import CONFIGS, DEPTH, tiny_model

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.model import cuda_graphs
from lm_eval_eglr.decoding.model.cuda_graphs import GraphRunner, capture_graph
from lm_eval_eglr.decoding.stopping import StopRule

PROMPTS = ["Tom has 3 apples and buys 4 more, so", "What is 12 * 7?", "x"]
IN_FP32 = ("qwen3-moe", "gpt-oss", "mixtral")  # torch's grouped products take no fp64
EAGER = {"strategy": "eager", "n": 8, "temperature": 1.0, "branch_threshold": 1.0}
ON_A_CPU = ("llama", "mistral-sliding", "qwen3-moe")
FAMILIES = CONFIGS if torch.cuda.is_available() else ON_A_CPU
GPU = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: nothing captured")
)


class Captures:
    """Makes runners whose captures and replays are counted."""

    def __init__(self, device):
        self.device = device
        self.captures = self.replays = 0

    def make_runner(self, stack, cache):
        return GraphRunner(stack, cache, self.capture)

    def capture(self, compute, pool):
        self.captures += 1
        replay = compute if self.device == "cpu" else capture_graph(compute, pool)

        def counted():
            self.replays += 1
            replay()

        return counted


@pytest.fixture(params=["cpu", GPU])
def device(request):
    return request.param


@pytest.fixture
def counts(device):
    return Captures(device)


def rollouts(model, tokenizer, make_runner=None, **options):
    if "strategy" not in options:
        grid = {"spans": [0, 1, DEPTH // 2, DEPTH], "temperatures": "0:1x2"}
        options = {**grid, "entropy_threshold": 1.0, "tolerance": 0.02, **options}
    decoder = PoolDecoder(model, tokenizer, cuda_graphs=False, **options)
    if make_runner is not None:
        decoder.engine.make_runner = make_runner
    return [
        [(rollout.cell, rollout.tokens, rollout.telemetry.recursions) for rollout in pool]
        for pool in decoder.generate(PROMPTS, max_new_tokens=8, progress=False)
    ]


def compare(device, counts, family, tokenizer, **options):
    """Rollouts with graphs and without, on one device: another one computes rotations to other last bits."""
    model = tiny_model(family).to(device)
    if family not in IN_FP32:
        model = model.double()
    without = rollouts(model, tokenizer, **options)
    assert not counts.captures
    assert rollouts(model, tokenizer, counts.make_runner, **options) == without
    assert any(recursions for pool in without for _, _, recursions in pool)
    assert counts.captures
    # Experts in fp32 are run one by one on a GPU, by numbers that it tells, which a graph cannot wait for.
    if device == "cpu" or family not in IN_FP32:
        assert counts.captures < counts.replays


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture(family, device, counts, tokenizer):
    compare(device, counts, family, tokenizer)


@pytest.mark.parametrize("update", ["anchored", "damped", "replace"])
def test_every_rule(update, device, counts, tokenizer, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "CAPTURE_AFTER", 1)  # as in long runs, where every shape gets its graph
    compare(device, counts, "llama", tokenizer, update=update, max_recursions=3)


@pytest.mark.parametrize("update", ["anchored", "damped"])
@pytest.mark.parametrize("rule", [{"exit": "latent", "exit_threshold": 0.2}, {"exit": "none"}], ids=str)
def test_every_rule_of_exit(rule, update, device, counts, tokenizer):
    """One of entropies reads what kl reads."""
    compare(device, counts, "llama", tokenizer, **rule, update=update, strength=0.5, tolerance=None)


@pytest.mark.parametrize(
    "options",
    [{"share": False}, {"max_rows": 12}, {"max_rows": 48}, {"spans": "0"}, EAGER],
    ids=str,
)
def test_every_batch(options, device, counts, tokenizer):
    model = tiny_model("llama").double().to(device)
    without = rollouts(model, tokenizer, **options)
    assert rollouts(model, tokenizer, counts.make_runner, **options) == without
    assert counts.replays


def test_requests_of_other_spans_join_a_running_batch(device, counts, tokenizer):
    """Shapes are captured for the spans of the requests so far."""
    model = tiny_model("llama").double().to(device)

    def run(graphs):
        options = {"spans": "0:1:2:4", "temperatures": "0", "entropy_threshold": 1.0, "max_rows": 4}
        decoder = PoolDecoder(model, tokenizer, **options, cuda_graphs=False)
        if graphs:
            decoder.engine.make_runner = counts.make_runner
        requests = [
            decoder.request(tokenizer(prompt).input_ids, cells, 10, StopRule(), f"{prompt} {len(cells)}")
            for cells in (decoder.cells[:1], decoder.cells[:2], decoder.cells[2:])
            for prompt in PROMPTS
        ]
        pools = dict(decoder.decode(requests))
        return [[rollout.tokens for rollout in pools[number]] for number in range(len(requests))]

    assert run(False) == run(True)
    assert counts.replays


def test_what_cannot_be_captured_is_said_once_and_runs(device, tokenizer, caplog):
    model = tiny_model("llama").double().to(device)
    without = rollouts(model, tokenizer)

    def refuse(compute, pool):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    with caplog.at_level(logging.WARNING):
        found = rollouts(model, tokenizer, lambda stack, cache: GraphRunner(stack, cache, refuse))
    assert found == without
    assert [record.message.count("CUDA graphs") for record in caplog.records] == [1]
    assert "LlamaForCausalLM" in caplog.text
    assert "permitted when stream" in caplog.text


def test_out_of_memory_while_capturing_goes_on_with_fewer_rows(device, counts, tokenizer):
    model = tiny_model("llama").double().to(device)
    without = rollouts(model, tokenizer)
    failures = []

    def fail(compute, pool):
        if not failures:
            failures.append(1)
            raise torch.OutOfMemoryError("no memory")
        return counts.capture(compute, pool)

    found = rollouts(model, tokenizer, lambda stack, cache: GraphRunner(stack, cache, fail))
    assert found == without
    assert failures
    assert counts.replays


def test_a_model_on_a_cpu_is_not_captured():
    assert not cuda_graphs.can_capture(tiny_model("llama"))
