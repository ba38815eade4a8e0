"""Laws of compiled layers: the same rollouts, and few compilations whatever the model's depth or the batch.

Most of them trace without torch's own compiler: a backend that runs what it is given as it is, and counts.
"""

from __future__ import annotations

import pytest
import torch
from tiny_models import CONFIGS, DEPTH, tiny_model

from lm_eval_eglr.decoding import PoolDecoder, UnsupportedModelError
from lm_eval_eglr.decoding.model.cuda_graphs import GraphRunner

PROMPTS = ["Tom has 3 apples and buys 4 more, so", "What is 12 * 7?", "x"]
PLAIN = {"spans": "0", "temperatures": "0:1x2"}
GRID = {"spans": f"0:1:{DEPTH}", "temperatures": "0:1", "entropy_threshold": 1.0, "tolerance": 0.02}
IN_FP32 = ("qwen3-moe", "gpt-oss", "mixtral")  # torch's grouped products take no fp64
# Kinds of passes (one row or several, columns that are all of the cache's or fewer, shared pasts with one
# query a row or more) times kinds of layers.
MOST = 8


class Compiler:
    """A backend of torch.compile that counts the graphs it is given."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture
def compiler():
    return Compiler()


def graph_runner(stack, cache):
    """A captured pass is stood in for by running it again, as in test_step_graphs."""
    return GraphRunner(stack, cache, lambda compute, pool: compute)


def rollouts(model, tokenizer, compile_layers=False, make_runner=None, length=8, **options):
    decoder = PoolDecoder(model, tokenizer, compile_layers=compile_layers, **options)
    if make_runner is not None:
        decoder.engine.make_runner = make_runner
    return [
        [(rollout.cell, rollout.tokens, rollout.telemetry.recursions) for rollout in pool]
        for pool in decoder.generate(PROMPTS, max_new_tokens=length, progress=False)
    ]


def compare(family, tokenizer, compiler, **options):
    model = tiny_model(family)
    if family not in IN_FP32:
        model = model.double()
    expected = rollouts(model, tokenizer, **options)
    assert rollouts(model, tokenizer, compiler, **options) == expected
    assert 0 < compiler.graphs <= MOST
    return expected


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_rollouts_are_the_same(family, tokenizer, compiler):
    compare(family, tokenizer, compiler, **PLAIN)


def test_with_graphs_recursions_run_compiled(tokenizer, compiler):
    expected = compare("qwen2", tokenizer, compiler, make_runner=graph_runner, **GRID)
    assert any(recursions for pool in expected for _, _, recursions in pool)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{**PLAIN, "max_rows": 4}, {**GRID, "make_runner": graph_runner}], ids=["plain", "graphs"]
)
@pytest.mark.parametrize("family", CONFIGS)
def test_every_architecture(family, options, tokenizer, compiler):
    compare(family, tokenizer, compiler, **options)


def test_deeper_models_and_longer_runs_compile_no_more(tokenizer):
    def graphs(depth, length):
        compiler = Compiler()
        model = tiny_model("llama", num_hidden_layers=depth)
        rollouts(model, tokenizer, compiler, length=length, **PLAIN)
        return compiler.graphs

    assert graphs(2, 20) == graphs(6, 40)


def test_weights_that_change_between_calls_are_used(tokenizer, compiler):
    """Also those that are replaced: nothing of them is compiled in."""
    model, other = tiny_model("llama", seed=0), tiny_model("llama", seed=1)
    decoder = PoolDecoder(model, tokenizer, compile_layers=compiler, **PLAIN)

    def tokens(decoder):
        pools = decoder.generate(PROMPTS, max_new_tokens=8, progress=False)
        return [rollout.tokens for pool in pools for rollout in pool]

    before, graphs = tokens(decoder), compiler.graphs
    model.load_state_dict(other.state_dict())
    after = tokens(decoder)
    assert after != before
    assert after == tokens(PoolDecoder(other, tokenizer, **PLAIN))
    # torch 2.6 compiles for one more size that these rollouts meet; for weights it would layer by layer.
    assert compiler.graphs <= graphs + 1 < graphs + len(model.get_decoder().layers)


def test_hooks_see_every_layer_and_nothing_stays_behind(tokenizer, compiler):
    model = tiny_model("llama")
    layers = model.get_decoder().layers
    decoder = PoolDecoder(model, tokenizer, compile_layers=compiler, **PLAIN)
    seen = []
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, number=number: seen.append(number))
    graphs = compiler.graphs
    decoder.generate(PROMPTS[0], max_new_tokens=4, progress=False)
    assert seen[:DEPTH] == list(range(DEPTH))
    assert len(seen) % DEPTH == 0
    assert compiler.graphs - graphs <= MOST
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_layers_that_cannot_be_traced_are_refused_with_the_reason(tokenizer, compiler, monkeypatch):
    model = tiny_model("llama")
    mlp = type(model.get_decoder().layers[0].mlp)
    forward = mlp.forward

    def asks_the_device(self, hidden):
        return forward(self, hidden) if hidden.sum().item() < 1e30 else hidden

    monkeypatch.setattr(mlp, "forward", asks_the_device)
    PoolDecoder(model, tokenizer, **PLAIN)
    with pytest.raises(UnsupportedModelError, match="LlamaForCausalLM") as refused:
        PoolDecoder(model, tokenizer, compile_layers=compiler, **PLAIN)
    message = str(refused.value)
    assert message.startswith("compile_layers=True: the layers of LlamaForCausalLM cannot be compiled (")
    assert "\n" not in message


def test_layers_that_compute_something_else_when_compiled_are_refused(tokenizer):
    def wrong(graph, inputs):
        def run(*args):
            first, *others = graph.forward(*args)
            return (1.5 * first, *others)

        return run

    with pytest.raises(UnsupportedModelError, match="logits of compiled layers are off by"):
        PoolDecoder(tiny_model("llama"), tokenizer, compile_layers=wrong, **PLAIN)


def test_a_forward_that_was_replaced_is_refused(tokenizer):
    """As by accelerate, where layers are offloaded."""
    model = tiny_model("llama")
    layer = model.get_decoder().layers[1]
    layer.forward = layer.forward
    with pytest.raises(UnsupportedModelError, match="something has replaced their forward"):
        PoolDecoder(model, tokenizer, compile_layers=True, **PLAIN)


def test_other_values_are_refused(tokenizer, llama):
    with pytest.raises(ValueError, match="compile_layers='yes': expected True or False, or a function"):
        PoolDecoder(llama, tokenizer, compile_layers="yes")
    with pytest.raises(ValueError, match="compile_layers=True: not for RecurrentStudentForCausalLM"):
        PoolDecoder.from_pretrained("demo-recurrent", compile_layers=True)


def differ_at_ties_only(model, tokenizer, length, **options):
    """In fp32: other code rounds otherwise, and a token may flip where two are nearly as likely."""
    decoders = [
        PoolDecoder(model, tokenizer, trace=True, compile_layers=on, **options) for on in (False, True)
    ]
    pools = [decoder.generate(PROMPTS, max_new_tokens=length, progress=False) for decoder in decoders]
    for own, compiled in zip(*([r for pool in each for r in pool] for each in pools), strict=True):
        pairs = zip(own.tokens, compiled.tokens, strict=False)
        first = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
        if first is not None:
            assert own.telemetry.token_ties[first], "a token that rounding does not decide has changed"
        values = [each.telemetry.token_logprobs[:first] for each in (own, compiled)]
        torch.testing.assert_close(*map(torch.tensor, values), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_torchs_own_compiler(tokenizer):
    differ_at_ties_only(tiny_model("qwen2"), tokenizer, 24, **PLAIN)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: nothing compiled for it or captured"
)
@pytest.mark.parametrize("options", [PLAIN, GRID], ids=str)
def test_torchs_own_compiler_and_capture_on_cuda(options, tokenizer):
    differ_at_ties_only(tiny_model("qwen2").to("cuda"), tokenizer, 24, **options)
