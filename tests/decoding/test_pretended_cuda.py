"""Laws of decoding on a CUDA device, where there is none; tests/pretended_cuda.py says what that can tell."""

from __future__ import annotations

import pytest
import torch
from pretended_cuda import OnDevice, pretended_cuda, put
from recorded import recorded
from tiny_models import CONFIGS, DEPTH, tiny_model

from lm_eval_eglr.decoding import PoolDecoder
from lm_eval_eglr.decoding.numerics import statistics
from lm_eval_eglr.decoding.sampling import draw_tokens, warpers

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a real CUDA device is there to test on")

PROMPTS = ["Tom has 3 apples and buys 4 more, so", "What is 12 * 7?", "x"]
PLAIN = {"spans": "0", "temperatures": "0:0.8x3:1.3"}
GRID = {"spans": [0, 1, DEPTH // 2, DEPTH], "temperatures": "0:1x2", "entropy_threshold": 1.0}
EAGER = {"strategy": "eager", "n": 2, "branch_threshold": 1.0, "max_rollouts": 6}
ADAPTIVE = {"strategy": "adaptive_grid", "n": 6, "wave": 2, "vote_threshold": 1.0}
LATENT = {"exit": "latent", "exit_threshold": 0.2, "update": "damped", "strength": 0.5}
IN_FP32 = ("qwen3-moe", "gpt-oss", "mixtral")  # torch's grouped products take no fp64


def model_of(family="llama"):
    model = tiny_model(family)
    return model if family in IN_FP32 else model.double()


def decode(decoder, *, length=10, until=()):
    pools = decoder.generate(PROMPTS, max_new_tokens=length, until=until, progress=False)
    return recorded(pools)


@pytest.mark.parametrize(
    ("options", "run"),
    [
        (PLAIN, {}),
        ({**PLAIN, "max_rows": 7, "top_p": 0.9}, {"until": ["a", "7", "qu"]}),
        (GRID, {}),
        ({**GRID, "max_rows": 12}, {"until": ["e"], "length": 14}),
        ({**GRID, **LATENT, "share": False}, {}),
        (EAGER, {}),
        (ADAPTIVE, {}),
        ({**GRID, "cuda_graphs": False}, {}),
    ],
    ids=str,
)
def test_rollouts_costs_and_records_are_those_of_a_cpu(options, run, tokenizer, monkeypatch):
    expected = decode(PoolDecoder(model_of(), tokenizer, trace=True, **options), **run)
    with pretended_cuda(monkeypatch) as device:
        decoder = PoolDecoder(put(model_of()), tokenizer, trace=True, **options)
        device.waits.clear()
        device.arrived = 0
        steps = count_steps(decoder)
        assert decode(decoder, **run) == expected
    assert (0 < device.captures < device.replays) == options.get("cuda_graphs", True)
    # The host waits for one transfer a step, and for the records of rollouts that have ended.
    assert device.arrived >= len(steps)
    assert set(device.waits) == {"a copy to the host"}
    assert device.waits["a copy to the host"] <= sum(steps)


def count_steps(decoder):
    """Rollouts that each step ends, as it goes."""
    steps, step = [], decoder.engine.step

    def counted():
        done = step()
        if done is not None:
            steps.append(done.rollouts)
        return done

    decoder.engine.step = counted
    return steps


@pytest.mark.parametrize(("options", "most"), [(PLAIN, 4), (GRID, 6)], ids=["temperatures", "grid"])
def test_a_step_sends_the_device_little(options, most, tokenizer, monkeypatch):
    """A transfer of little costs what it takes to begin one; where rows begin, fork or end there are more."""
    with pretended_cuda(monkeypatch) as device:
        decoder = PoolDecoder(put(model_of()), tokenizer, **options)
        engine, quiet = decoder.engine, []
        step = engine.step

        def counted():
            before = device.sent, device.captures, engine.tree.events
            done = step()
            if (device.captures, engine.tree.events) == before[1:]:
                quiet.append(device.sent - before[0])
            return done

        engine.step = counted
        decode(decoder, length=40)
    assert len(quiet) >= 10
    assert max(quiet) <= most


def test_a_large_vocabulary_is_searched_as_on_a_cpu_without_waiting(monkeypatch):
    """The models of these tests have a small one."""
    rows = torch.randn(5, 6001, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = rows.log_softmax(-1), torch.full((5,), 0.8, dtype=torch.float64), rows[:, :7].sigmoid()
    expected = [*draw_tokens(*given, warpers((0, 1.0, 0.0))), statistics(given[0])]
    with pretended_cuda(monkeypatch) as device:
        there = [OnDevice(each) for each in given]
        found = [*draw_tokens(*there, warpers((0, 1.0, 0.0))), statistics(there[0])]
        assert not device.waits
        found = [each.cpu() for each in found]
    assert torch.equal(found[0], expected[0])
    for mine, its in zip(found[1:], expected[1:], strict=True):
        assert torch.allclose(mine, its)


QUICK = ("mistral-sliding", "gemma2-softcap", "gpt-oss")


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=() if family in QUICK else pytest.mark.slow)
        for family in CONFIGS
        if family != "llama"
    ],
)
def test_every_architecture(family, tokenizer, monkeypatch):
    options = {"spans": "0:2", "temperatures": "0:1x2", "entropy_threshold": 1.0}

    def tokens(model):
        return [
            [rollout[:3] for rollout in pool] for pool, _ in decode(PoolDecoder(model, tokenizer, **options))
        ]

    expected = tokens(model_of(family))
    with pretended_cuda(monkeypatch) as device:
        assert tokens(put(model_of(family))) == expected
    assert device.captures < device.replays


def test_half_precision_is_measured_at_start(tokenizer, monkeypatch):
    with pretended_cuda(monkeypatch) as device:
        decoder = PoolDecoder(put(tiny_model().bfloat16()), tokenizer, **GRID)
        pools = decode(decoder)
    assert decoder.engine.rounding < 0.5
    assert device.captures
    assert all(rollouts for rollouts, _ in pools)


def test_memory_that_runs_out_is_survived(tokenizer, monkeypatch):
    expected = decode(PoolDecoder(model_of(), tokenizer, **PLAIN))
    with pretended_cuda(monkeypatch) as device:
        decoder = PoolDecoder(put(model_of()), tokenizer, **PLAIN)
        device.fails_at = 5
        found = decode(decoder)
    assert device.fails_at is None
    assert [rollouts for rollouts, _ in found] == [rollouts for rollouts, _ in expected]
